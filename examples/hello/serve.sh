#!/bin/sh
# A dev server in five lines: every workspace runs this same file, on the same port 3000.
mkdir -p /tmp/www
sed -e "s/@NAME@/$(hostname)/g" -e "s/@GREETING@/${GREETING:-Hello}/g" index.html >/tmp/www/index.html
echo "listening on port 3000"
exec httpd -f -p 3000 -h /tmp/www
