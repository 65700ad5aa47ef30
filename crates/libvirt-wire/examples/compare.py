"""The same questions through libvirt's own Python library; prints microseconds, one name and number a line."""
import time

begun = time.perf_counter()
import libvirt

imported = time.perf_counter()
best = {}


def note(name, since):
    took = (time.perf_counter() - since) * 1e6
    best[name] = min(best.get(name, took), took)


for _ in range(15):
    t = time.perf_counter()
    connection = libvirt.open("qemu:///system")
    note("connect", t)
    domains = connection.listAllDomains()
    states = connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE)
    note("connect+list+states", t)
    assert len(domains) == len(states)
    t = time.perf_counter()
    for domain in domains:
        domain.state()
        domain.info()
    note("state and info of each", t)
    t = time.perf_counter()
    for domain in domains:
        domain.XMLDesc()
    note("XML of each", t)
    connection.close()
best["import"] = (imported - begun) * 1e6
for name, took in best.items():
    print(f"{name}\t{took:.0f}")
