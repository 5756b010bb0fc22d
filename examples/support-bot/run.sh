#!/bin/sh
# From six kinds of files to a data set: run.sh [WORK_FOLDER]
set -eu
work=${1:-support-bot-work}
mkdir -p "$work"
cp -R "$(dirname "$0")/data" "$(dirname "$0")/noria.toml" "$work/"
python3 - "$work/data" <<'END'
import pathlib, sqlite3, sys
folder = pathlib.Path(sys.argv[1])
(folder / "services.db").unlink(missing_ok=True)
base = sqlite3.connect(folder / "services.db")
base.executescript((folder / "services.sql").read_text(encoding="utf-8"))
base.close()
END
exec noria run dataset --project "$work"
