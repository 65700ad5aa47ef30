"""The module XenAPI of PyPI against xapi-sim, as its own documentation has it used."""

import sys
import XenAPI

coordinator, member = sys.argv[1:3]
session = XenAPI.Session(coordinator, ignore_ssl=True)
try:
    session.xenapi.login_with_password("root", "wrong", "1.0", "client.py")
    raise SystemExit("a wrong password was taken")
except XenAPI.Failure as failure:
    assert failure.details[0] == "SESSION_AUTHENTICATION_FAILED", failure.details
# A member sends to its coordinator.
try:
    XenAPI.Session(member, ignore_ssl=True).xenapi.login_with_password("root", "secret", "1.0", "client.py")
    raise SystemExit("a member let us in")
except XenAPI.Failure as failure:
    assert failure.details[0] == "HOST_IS_SLAVE", failure.details
    assert failure.details[1] in coordinator, failure.details
session.xenapi.login_with_password("root", "secret", "1.0", "client.py")
assert session.API_version, session.API_version
records = session.xenapi.VM.get_all_records()
template = next(ref for ref, record in records.items() if record["name_label"] == "linux-lua")
assert records[template]["memory_static_max"] == str(2 << 30)
assert len(session.xenapi.host.get_all()) == 2
vm = session.xenapi.VM.clone(template, "python <&> \"ü\"")
session.xenapi.VM.provision(vm)
network = session.xenapi.network.get_all()[0]
session.xenapi.VIF.create({
    "device": "0", "network": network, "VM": vm, "MAC": "", "MTU": "1500", "other_config": {},
    "qos_algorithm_type": "", "qos_algorithm_params": {},
})
events = getattr(session.xenapi.event, "from")
token = events(["VM", "task"], "", 0.0)["token"]
task = session.xenapi.Async.VM.start(vm, False, False)
seen = set()
while session.xenapi.task.get_status(task) == "pending" or "Running" not in seen:
    batch = events(["VM", "task"], token, 5.0)
    token = batch["token"]
    seen.update(event["snapshot"]["power_state"] for event in batch["events"] if event["ref"] == vm and "snapshot" in event)
assert session.xenapi.task.get_status(task) == "success", session.xenapi.task.get_error_info(task)
session.xenapi.task.destroy(task)
session.xenapi.VM.hard_shutdown(vm)
assert session.xenapi.VM.get_power_state(vm) == "Halted"
try:
    session.xenapi.VM.hard_shutdown(vm)
    raise SystemExit("a VM that is off was ended")
except XenAPI.Failure as failure:
    assert failure.details[::3] == ["VM_BAD_POWER_STATE", "halted"], failure.details
session.xenapi.VM.destroy(vm)
session.xenapi.session.logout()
print("ok")
