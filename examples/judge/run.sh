#!/bin/sh
# The judge homework, end to end, on this machine alone: run.sh WORK_FOLDER
set -eu
work=${1:?usage: run.sh WORK_FOLDER}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$work"
cp "$here/noria.toml" "$here"/*.jsonl "$work/"
cd "$work"

echo "1. The local model answers the questions and is judged inside MLflow."
noria judge mlflow quality --file questions.jsonl --answers local

echo "2. The same judges, in noria: what they say, and what it costs beside the answers."
noria judge run quality --file questions.jsonl --answers local
noria judge run g-eval --file questions.jsonl --answers local

echo "3. How far can they be believed? Answers whose grades are known."
for judge in quality correctness; do
    noria judge calibrate "$judge" --labels labels.jsonl
done
noria judge calibrate g-eval --labels labels.jsonl || echo "(too few of its scores are sure: see above)"
noria judge calibrate better --labels pairs.jsonl

echo "4. The same run again: nothing is asked twice, and its number is put right by the labels."
noria judge run quality --file questions.jsonl --answers local
noria judge list
echo "look at the results: mlflow server --backend-store-uri sqlite:///$PWD/mlflow.db --port 5000"
