-- Asks the address in the environment, whatever the URL's host resolves to here: browsers know
-- names under .localhost, other programs may not, and TLS wants the name, not the address.
local resolve = wrk.resolve

function wrk.resolve(_, service)
  resolve(os.getenv("ADDRESS"), service)
end

-- What wrk has measured, as a last line of JSON. Times are in microseconds.
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "duration": %d, "p50": %d, "p99": %d, "failed": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
