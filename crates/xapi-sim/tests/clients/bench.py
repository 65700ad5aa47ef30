"""The same by a bare HTTP client and by the module XenAPI: python bench.py https://ADDRESS"""

import http.client
import json
import ssl
import statistics
import sys
import time
import XenAPI

url = sys.argv[1]


def median(work, times):
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        taken.append((time.perf_counter() - begun) * 1e3)
    return round(statistics.median(taken), 3)


connection = http.client.HTTPSConnection(url.removeprefix("https://"), context=ssl._create_unverified_context())


def bare(method, *params):
    body = json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": 1})
    connection.request("POST", "/jsonrpc", body, {"Content-Type": "application/json"})
    return connection.getresponse().read()


token = json.loads(bare("session.login_with_password", "root", "secret"))["result"]
vm = json.loads(bare("VM.get_by_name_label", token, "vm-00000"))["result"][0]
session = XenAPI.Session(url, ignore_ssl=True)
session.xenapi.login_with_password("root", "secret", "1.0", "bench.py")
print(json.dumps({
    "bare_call_ms": median(lambda: bare("VM.get_power_state", token, vm), 500),
    "bare_all_records_ms": median(lambda: bare("VM.get_all_records", token), 20),
    "bare_all_records_parsed_ms": median(lambda: json.loads(bare("VM.get_all_records", token)), 20),
    "XenAPI_call_ms": median(lambda: session.xenapi.VM.get_power_state(vm), 200),
    "XenAPI_all_records_ms": median(lambda: session.xenapi.VM.get_all_records(), 5),
}, indent=2))
