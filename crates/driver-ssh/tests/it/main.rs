//! The driver against a real sshd on loopback, which is the one of `vmoon-remote`'s tests.

mod contract;
mod driver;
#[path = "../../../remote/tests/it/lab.rs"]
#[expect(dead_code, reason = "it is shared with tests that cut connections at a byte")]
mod lab;
