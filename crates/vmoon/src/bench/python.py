"""Measures pylua_bioxen_vm_lib the way its README uses it: create_interactive_vm, send_input, read_output.

Arguments: section, directory to work in, Lua interpreter, parameters as JSON. Prints one JSON object: {"figures": ...} or
{"error": ...}. Durations in microseconds, memory in bytes.
"""
import glob
import json
import os
import re
import sys
import time

answer_fd = os.dup(1)
os.dup2(2, 1)  # the library prints to standard output
section, directory, lua, parameters = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
os.chdir(directory)  # and logs into the current directory


def answer(value):
    os.write(answer_fd, json.dumps(value).encode())
    os._exit(0)  # its threads must not delay us


def us(seconds):
    return round(seconds * 1e6, 1)


def summary(times):
    times = sorted(times)
    at = lambda part: us(times[max(1, -(-len(times) * part // 100)) - 1])
    return {"n": len(times), "p50_us": at(50), "p95_us": at(95), "p99_us": at(99), "max_us": us(times[-1])}


def timed(work):
    begun = time.perf_counter()
    result = work()
    return time.perf_counter() - begun, result


def ask(manager, vm, code, wait=0.1):
    manager.send_input(vm, code + "\n")
    return manager.read_output(vm, timeout=wait) or ""


def holds(text, word):
    return word in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).split()


def create(manager, n, prefix="vm"):
    names = ["%s%d" % (prefix, i) for i in range(n)]
    for name in names:
        manager.create_interactive_vm(name)
    return names


def pids(manager, names):
    return [manager.session_manager.get_session(name).process.pid for name in names]


def pss(pid):
    for line in open("/proc/%s/smaps_rollup" % pid):
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def cpu(pid):
    total = 0
    for path in glob.glob("/proc/%s/task/*/schedstat" % pid):
        try:
            total += int(open(path).read().split()[0])
        except OSError:
            pass  # the thread has ended
    return total / 1e9


def probe(library):
    from importlib.metadata import version
    return version("pylua-bioxen-vm-lib")


def evaluate(library):
    manager = library.VMManager(lua_executable=lua)
    create(manager, 1)
    times = []
    for _ in range(parameters["n"]):
        took, text = timed(lambda: ask(manager, "vm0", "print(1+1)"))
        if not holds(text, "2"):
            raise RuntimeError("1+1 was answered with %r" % text)
        times.append(took)
    return summary(times)


def create_first(library):
    manager = library.VMManager(lua_executable=lua)
    times = []
    for i in range(parameters["n"]):
        def work():
            manager.create_interactive_vm("vm%d" % i)
            return ask(manager, "vm%d" % i, "print(1+1)")
        took, text = timed(work)
        if not holds(text, "2"):
            raise RuntimeError("1+1 was answered with %r" % text)
        times.append(took)
    return summary(times)


def run(library):
    manager = library.VMManager(lua_executable=lua)
    manager.create_vm("vm")
    return summary([timed(lambda: manager.execute_vm_sync("vm", "print(1)"))[0] for _ in range(parameters["n"])])


def correct(library):
    """Slow commands, each of which takes 300 ms and prints its own number."""
    manager = library.VMManager(lua_executable=lua)
    create(manager, 1)
    wrong = 0
    for i in range(parameters["n"]):
        number = str(1000 + i)
        code = "local t = os.clock() while os.clock() - t < 0.3 do end print(%s)" % number
        text = ask(manager, "vm0", code)
        # The echoed command holds the number too, in brackets; the answer is the number alone.
        wrong += not holds(text, number)
    return {"commands": parameters["n"], "wrong": wrong}


def idle(library):
    n, seconds = parameters["n"], parameters["seconds"]
    manager = library.VMManager(lua_executable=lua)
    before = pss("self")
    names = create(manager, n)
    children = pids(manager, names)
    own = pss("self") - before
    memory = sum(map(pss, children))
    used = lambda: sum(map(cpu, children))
    others, own_before, begun = used(), cpu("self"), time.perf_counter()
    time.sleep(seconds)
    # Ourselves inside, the children outside: looking at them is work that would count as the library's.
    own_used, took = cpu("self") - own_before, time.perf_counter() - begun
    cores = (own_used + used() - others) / took
    return {
        "sessions": n,
        "pss_per_vm_bytes": round((memory + own) / n),
        "pss_total_bytes": memory + own,
        "idle_cores": round(cores, 5),
        "idle_cores_per_1000_extrapolated": round(cores * 1000 / n, 5),
    }


def parallel(library):
    n = parameters["n"]
    manager = library.VMManager(lua_executable=lua)
    create(manager, n)
    took, texts = timed(lambda: manager.broadcast_to_interactive_sessions("vm*", "print(6*7)"))
    answered = sum(holds(text or "", "42") for text in texts.values())
    return {"sessions": n, "answered": answered, "p50_us": us(took)}


def many(library):
    from concurrent.futures import ThreadPoolExecutor
    manager = library.VMManager(lua_executable=lua)
    names, error = [], None
    for i in range(parameters["n"]):
        try:
            names += create(manager, 1, "vm%d-" % i)
        except Exception as problem:
            error = str(problem)
            break

    def works(name):
        try:
            return holds(ask(manager, name, "print(6*7)"), "42")
        except Exception:
            return False

    with ThreadPoolExecutor(32) as pool:
        answered = sum(pool.map(works, names))
    return {"asked_for": parameters["n"], "created": len(names), "answered": answered, "create_error": error}


def output(library):
    """Prints a part of what the others print, for the library reads 1 KiB at a time and pauses after each."""
    n = parameters["bytes"]
    manager = library.VMManager(lua_executable=lua)
    create(manager, 1)
    begun = time.perf_counter()
    # The terminal echoes the command: neither the letter nor the last word may stand in it.
    line = "string.char(120):rep(1023)"
    manager.send_input("vm0", "for i = 1, %d do io.write(%s, '\\n') end print('th' .. 'end')\n" % (n // 1024, line))
    got, tail = 0, ""
    while "thend" not in tail and time.perf_counter() - begun < 120:
        text = manager.read_output("vm0", timeout=0.1) or ""
        got += text.count("x")
        tail = tail[-16:] + text
    took = time.perf_counter() - begun
    wanted = n // 1024 * 1023
    return {"bytes": n, "arrived_bytes": got, "whole": got == wanted, "us": us(took), "bytes_per_s": round(got / took)}


def lupa_runtime():
    from lupa import LuaRuntime
    return LuaRuntime()


def lupa_eval():
    work = lupa_runtime()
    times = []
    for _ in range(parameters["n"]):
        took, value = timed(lambda: work.eval("1+1"))
        if value != 2:
            raise RuntimeError("1+1 was answered with %r" % (value,))
        times.append(took)
    return summary(times)


def lupa_create():
    lupa_runtime()  # what the first one loads
    times = []
    for _ in range(parameters["n"]):
        took, value = timed(lambda: lupa_runtime().eval("1+1"))
        if value != 2:
            raise RuntimeError("1+1 was answered with %r" % (value,))
        times.append(took)
    return summary(times)


measures = {
    "probe": probe, "eval": evaluate, "create": create_first, "run": run, "correct": correct, "idle": idle,
    "parallel": parallel, "many": many, "output": output,
}
in_process = {"lupa-eval": lupa_eval, "lupa-create": lupa_create}
if section in in_process:
    try:
        answer({"figures": in_process[section]()})
    except ImportError as problem:
        answer({"error": "not installed: %s" % problem})
    except BaseException as problem:
        answer({"error": "%s: %s" % (type(problem).__name__, problem)})
try:
    import pylua_bioxen_vm_lib as library
except Exception as problem:
    answer({"error": "the library cannot be imported: %s" % problem})
try:
    answer({"figures": measures[section](library)})
except BaseException as problem:
    answer({"error": "%s: %s" % (type(problem).__name__, problem)})
