"""Answers statements of ClickHouse, one JSON object a line: what is asked has `sql`, the answer `rows` and `seconds`."""

import json
import sys
import time

from chdb import session

database = session.Session(sys.argv[1])
for line in sys.stdin:
    began = time.monotonic()
    try:
        text = str(database.query(json.loads(line)["sql"], "JSONEachRow"))
        seconds = time.monotonic() - began
        answer = {"rows": [json.loads(row) for row in text.splitlines()], "seconds": seconds}
    except Exception as error:
        answer = {"error": str(error)}
    print(json.dumps(answer), flush=True)
