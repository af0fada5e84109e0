// The least that a backend can do: bytes that are ready, for every request on a connection that
// stays open. What it takes itself must not hide what a proxy in front of it takes.
"use strict";

const answer = (size) =>
  Buffer.from(`HTTP/1.1 200 OK\r\nContent-Length: ${size}\r\n\r\n${"x".repeat(size)}`);
const small = answer(12);
const large = answer(64 * 1024);

require("node:net")
  .createServer({ noDelay: true }, (socket) => {
    let begun = ""; // a request that has not come whole yet
    socket.on("error", () => {}); // whoever asked went away
    socket.on("data", (bytes) => {
      const requests = (begun + bytes.toString("latin1")).split("\r\n\r\n");
      begun = requests.pop();
      for (const request of requests) {
        socket.write(request.startsWith("GET /large ") ? large : small);
      }
    });
  })
  .listen(3000);
