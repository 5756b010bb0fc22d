#!/bin/sh
# Calls tools by hand, then measures how well the model uses them: run.sh [WORK_FOLDER]
set -eu
work=${1:-tools-work}
mkdir -p "$work"
cp -R "$(dirname "$0")/data" "$(dirname "$0")/noria.toml" "$(dirname "$0")/questions.jsonl" "$work/"
cd "$work"
noria tools list
noria tools call get_weather_forecast '{"country": "United Kingdom", "city": "Birmingham", "date": "2026-01-21"}'
noria tools call query_table "{\"sql\": \"SELECT name, smiles FROM compounds WHERE name IN ('oxalic acid', 'calcium carbonate')\"}"
exec noria tools test questions.jsonl --trace
