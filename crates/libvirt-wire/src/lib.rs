//! An asynchronous client of libvirt's remote procedure calls, in Rust alone.
