//! libFuzzer with one target, named by the variable `VMOON_FUZZ_TARGET`. `cargo xtask fuzz` builds and starts it.

#![no_main]

use std::sync::OnceLock;
use vmoon_fuzz::Target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    static TARGET: OnceLock<&'static Target> = OnceLock::new();
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("VMOON_FUZZ_TARGET").unwrap_or_default();
        vmoon_fuzz::target(&name).unwrap_or_else(|| panic!("VMOON_FUZZ_TARGET names no target: {name:?}"))
    });
    (target.run)(data);
});
