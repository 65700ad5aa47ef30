//! A domain that boots the guest.

use vmoon_guest_image::Guest;

/// A domain that boots the guest. Its XML is for tests of the wire; a driver writes its own.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its name: letters, digits and `-`.
    pub name: String,
    /// Words for the guest: `deaf`, `mute`.
    pub words: String,
    /// More devices, XML.
    pub devices: String,
}

impl Machine {
    /// A plain one: serial console, guest agent, VNC on a socket, no disk, no network.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), words: String::new(), devices: String::new() }
    }

    /// Its definition.
    ///
    /// # Panics
    /// If the name has other letters.
    pub fn xml(&self, guest: &Guest) -> String {
        assert!(self.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'), "a name for tests is plain");
        let (name, words, devices) = (&self.name, &self.words, &self.devices);
        let (kernel, initrd) = (guest.kernel.display(), guest.initrd.display());
        format!(
            "<domain type='qemu'><name>{name}</name><memory unit='MiB'>192</memory><vcpu>1</vcpu>\
             <os><type arch='x86_64' machine='q35'>hvm</type><kernel>{kernel}</kernel><initrd>{initrd}</initrd>\
             <cmdline>console=ttyS0 quiet name={name} {words}</cmdline></os>\
             <features><acpi/><apic/></features><cpu mode='maximum'/>\
             <devices><controller type='pci' model='pcie-root'/>{}\
             <controller type='usb' model='none'/>\
             <serial type='pty'><target port='0'/></serial><console type='pty'><target type='serial' port='0'/></console>\
             <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>\
             <graphics type='vnc'><listen type='socket'/></graphics><video><model type='vga'/></video>\
             <memballoon model='virtio'/><rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>\
             {devices}</devices></domain>",
            "<controller type='pci' model='pcie-root-port'/>".repeat(8)
        )
    }
}
