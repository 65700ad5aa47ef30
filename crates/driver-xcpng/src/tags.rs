//! How we know what we made. Pure.

use vmoon_core::{MachineId, hosts::DiskFate};
use vmoon_xapi::records::{Strings, Vm};

/// Our id and the VM's uuid, with a slash between: a copy of the VM has another uuid.
pub(crate) const ID: &str = "vmoon:id";
/// The VM's uuid once everything about it was made.
pub(crate) const COMPLETE: &str = "vmoon:complete";

/// What becomes of its disks with the next deletion, where that was said: of a VM.
pub(crate) const DISKS: &str = "vmoon:disks";
/// That a disk is a seed.
pub(crate) const SEED: &str = "vmoon:seed";
/// The uuid of a VM of somebody else that a disk was made for.
pub(crate) const VM: &str = "vmoon:vm";
/// That a device is being added, and by which change: it goes if that is cut off.
pub(crate) const ADDING: &str = "vmoon:adding";

/// The word for what was decided about disks.
pub(crate) const fn fate_word(fate: DiskFate) -> &'static str {
    match fate {
        DiskFate::Own => "own",
        DiskFate::All => "all",
        DiskFate::Keep => "keep",
    }
}

/// What was decided about a VM's disks.
pub(crate) fn fate(vm: &Vm) -> DiskFate {
    match vm.other_config.get(DISKS).map(String::as_str) {
        Some("all") => DiskFate::All,
        Some("keep") => DiskFate::Keep,
        _ => DiskFate::Own,
    }
}

/// Whether a disk was made by us for a VM of somebody else.
pub(crate) fn is_disk_of(config: &Strings, vm: &str) -> bool {
    config.get(VM).is_some_and(|owner| owner == vm)
}

/// What `vmoon:id` says of this VM.
pub(crate) fn tag(id: MachineId, uuid: &str) -> String {
    format!("{id}/{uuid}")
}

/// The name of a VM between its first call and the tag.
pub(crate) fn first_name(id: MachineId) -> String {
    format!("vmoon-creating-{id}")
}

/// Whose machine a VM is, if it is one of ours.
pub(crate) fn owner(vm: &Vm) -> Option<MachineId> {
    if let Some(id) = vm.name_label.strip_prefix("vmoon-creating-") {
        return id.parse().ok();
    }
    let (id, uuid) = vm.other_config.get(ID)?.split_once('/')?;
    (uuid == vm.uuid).then(|| id.parse().ok()).flatten()
}

/// Whether it is there as a whole. Those of others are.
pub(crate) fn complete(vm: &Vm) -> bool {
    owner(vm).is_none() || vm.other_config.get(COMPLETE) == Some(&vm.uuid)
}

/// Whether it is a machine for us, and not a template, a snapshot or a host's own domain. What we have begun to make is one although it may still be a template.
pub(crate) fn is_machine(vm: &Vm) -> bool {
    !vm.is_control_domain && !vm.is_a_snapshot && (!vm.is_a_template || (owner(vm).is_some() && !complete(vm)))
}

/// Whether a disk was made for this machine.
pub(crate) fn is_our_disk(config: &Strings, id: MachineId) -> bool {
    config.get(ID).is_some_and(|owner| *owner == id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(name: &str, tag: Option<&str>, done: bool) -> Vm {
        let mut vm = Vm { uuid: "u".into(), name_label: name.into(), ..Vm::default() };
        vm.other_config.extend(tag.map(|tag| (ID.to_owned(), tag.to_owned())));
        if done {
            vm.other_config.insert(COMPLETE.into(), "u".into());
        }
        vm
    }

    #[test]
    fn a_copy_of_ours_is_not_ours() {
        let id: MachineId = "01890000-0000-7000-8000-000000000001".parse().unwrap();
        assert_eq!(owner(&vm("a", Some(&tag(id, "u")), true)), Some(id));
        assert_eq!(owner(&vm("a", Some(&tag(id, "other")), true)), None);
        assert_eq!(owner(&vm("a", Some("nonsense/u"), true)), None);
        assert_eq!(owner(&vm(&first_name(id), None, false)), Some(id));
        assert_eq!(owner(&vm("vmoon-creating-x", None, false)), None);
        assert!(!complete(&vm("a", Some(&tag(id, "u")), false)) && complete(&vm("a", None, false)));
    }

    #[test]
    fn templates_and_snapshots_are_no_machines_but_what_we_have_begun_is() {
        let id: MachineId = "01890000-0000-7000-8000-000000000001".parse().unwrap();
        let begun = Vm { is_a_template: true, ..vm(&first_name(id), None, false) };
        assert!(is_machine(&begun));
        // One of ours that somebody has made a template of.
        let template = Vm { is_a_template: true, ..vm("a", Some(&tag(id, "u")), true) };
        assert!(!is_machine(&template));
        for change in [|vm: &mut Vm| vm.is_a_snapshot = true, |vm: &mut Vm| vm.is_control_domain = true] {
            let mut vm = vm("a", None, false);
            assert!(is_machine(&vm));
            change(&mut vm);
            assert!(!is_machine(&vm));
        }
    }
}
