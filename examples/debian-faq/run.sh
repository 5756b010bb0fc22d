#!/bin/sh
# One turn of the wheel on a folder of FAQ pages: run.sh HTML_FOLDER [WORK_FOLDER]
# On a Debian machine: apt-get install debian-faq, then run.sh /usr/share/doc/debian/FAQ
set -eu
pages=${1:?usage: run.sh HTML_FOLDER [WORK_FOLDER]}
work=${2:-debian-faq-work}
mkdir -p "$work/data"
cp "$pages"/*.en.html "$work/data/" 2>/dev/null || cp "$pages"/*.html "$work/data/"
cp "$(dirname "$0")/noria.toml" "$work/"
exec noria run --project "$work"
