//! What a pool has before anybody asks for anything.

use crate::{
    model::{Model, NULL},
    sim::fields,
    store::Store,
};
use serde_json::json;

const GIB: i64 = 1 << 30;

/// A pool of one host, with storage, a network, and templates of both kinds.
pub(crate) fn pool(address: &str) -> Store {
    let mut store = Store::new(Model::get());
    let host = store.insert(
        "host",
        fields(json!({
            "name_label": "sim-host-1", "hostname": "sim-host-1", "address": address, "enabled": true,
            "software_version": {"product_brand": "vmoon xapi-sim", "product_version": "8.3.0", "xapi": "26.1", "platform_name": "sim"},
            "API_version_major": 2, "API_version_minor": 21,
        })),
    );
    let sr = store.insert(
        "SR",
        fields(json!({"name_label": "Local storage", "type": "ext", "content_type": "user", "physical_size": 200 * GIB, "physical_utilisation": 2 * GIB})),
    );
    store.insert("PBD", fields(json!({"host": host, "SR": sr, "currently_attached": true, "device_config": {"device": "/dev/sim"}})));
    let iso = store.insert("SR", fields(json!({"name_label": "ISO images", "type": "iso", "content_type": "iso", "shared": true})));
    store.insert("PBD", fields(json!({"host": host, "SR": iso, "currently_attached": true, "device_config": {"location": "sim:/iso"}})));
    store.insert(
        "VDI",
        fields(json!({"name_label": "debian-12-netinst.iso", "SR": iso, "virtual_size": 660_000_000, "type": "user", "read_only": true, "sharable": true})),
    );
    store.insert("network", fields(json!({"name_label": "Pool-wide network associated with eth0", "bridge": "xenbr0", "MTU": 1500})));
    store.insert(
        "pool",
        fields(json!({"name_label": "sim", "master": host, "default_SR": sr, "suspend_image_SR": sr, "crash_dump_SR": NULL})),
    );
    store.insert(
        "VM",
        fields(json!({
            "name_label": "Control domain on host: sim-host-1", "is_control_domain": true, "power_state": "Running", "resident_on": host, "domid": 0,
            "memory_static_max": 2 * GIB, "memory_dynamic_max": 2 * GIB, "memory_dynamic_min": 2 * GIB, "VCPUs_max": 2, "VCPUs_at_startup": 2,
        })),
    );
    let disk = format!("<provision><disk device=\"0\" size=\"{}\" sr=\"\" bootable=\"true\" type=\"system\"/></provision>", 10 * GIB);
    for (name, disks) in [("Debian Bookworm 12", disk.as_str()), ("Other install media", "<provision></provision>")] {
        template(&mut store, name, true, json!({"default_template": "true", "disks": disks, "install-methods": "cdrom,http,ftp"}));
    }
    let custom = template(&mut store, "linux-lua", false, json!({}));
    let vdi = store.insert(
        "VDI",
        fields(json!({"name_label": "linux-lua root", "SR": sr, "virtual_size": 2 * GIB, "type": "system", "managed": true})),
    );
    store.insert(
        "VBD",
        fields(json!({"VM": custom, "VDI": vdi, "userdevice": "0", "bootable": true, "mode": "RW", "type": "Disk", "empty": false})),
    );
    store
}

fn template(store: &mut Store, name: &str, default: bool, config: serde_json::Value) -> String {
    store.insert(
        "VM",
        fields(json!({
            "name_label": name, "is_a_template": true, "is_default_template": default, "power_state": "Halted", "other_config": config,
            "memory_static_max": 2 * GIB, "memory_static_min": GIB, "memory_dynamic_max": 2 * GIB, "memory_dynamic_min": 2 * GIB,
            "VCPUs_max": 1, "VCPUs_at_startup": 1, "domain_type": "hvm", "HVM_boot_policy": "BIOS order",
            "HVM_boot_params": {"order": "cdn", "firmware": "bios"}, "platform": {"acpi": "1", "apic": "true", "viridian": "false"},
            "allowed_operations": ["clone", "copy", "provision", "export", "destroy"],
        })),
    )
}
