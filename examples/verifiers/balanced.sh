#!/bin/sh
# A verifier in shell, one JSON object a line each way: as many opening as closing brackets. Run by the tests:
#   reckon verify test examples/verifiers/balanced.cases.jsonl --kind command \
#     --set 'command=["sh", "examples/verifiers/balanced.sh"]'
echo '{"ready": true}'
while IFS= read -r call; do
    id=${call#*\"id\":}
    id=${id%%[,\}]*}
    # Quotes within a JSON text are escaped, so the first `,"tokens":` after the completion is its end.
    text=${call#*\"completion\":\"}
    text=${text%%\",\"tokens\":*}
    opening=$(printf %s "$text" | tr -cd '(' | wc -c)
    closing=$(printf %s "$text" | tr -cd ')' | wc -c)
    [ "$opening" -eq "$closing" ] && reward=1 || reward=0
    echo "{\"id\": $id, \"reward\": $reward, \"reason\": \"$((opening)) open, $((closing)) close\"}"
done
