# Writes down which variant of each of its files was at work: its result says what code made it.
set -e
echo "$1" >> "$CAMPAIGN_LEDGER"
here=$(dirname "$0")
table=$(cat "$here/table.txt")
sleep "$3"
extra=none
if [ -e "$here/extra.txt" ]; then extra=$(cat "$here/extra.txt"); fi
printf '{"code": {"script.sh": "%s", "table.txt": "%s", "extra.txt": "%s"}, "text": "%s", "upload": ""}' \
  "@a@" "$table" "$extra" "$2" > "$BONSEYES_OUTPUT/result.json"
if [ -n "$4" ]; then cp "$4/result.json" "$BONSEYES_OUTPUT/dataset.json"; fi
