//! KVM machines under libvirt.
