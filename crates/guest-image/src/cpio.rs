//! An archive in the form that the Linux kernel unpacks as its first root file system: cpio "newc" (Documentation/driver-api/early-userspace/buffer-format.rst).

/// What the archive holds so far.
pub(crate) struct Archive {
    bytes: Vec<u8>,
    count: u32,
}

impl Archive {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::new(), count: 0 }
    }

    pub(crate) fn folder(&mut self, path: &str, mode: u32) {
        self.entry(path, 0o040_000 | mode, &[]);
    }

    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entry(path, 0o100_000 | mode, content);
    }

    pub(crate) fn link(&mut self, path: &str, to: &str) {
        self.entry(path, 0o120_777, to.as_bytes());
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.count += 1;
        let path = path.trim_start_matches('/');
        let size = u32::try_from(content.len()).expect("nothing in a test guest has 4 GiB");
        // Inode, mode, user, group, links, time, size, four device numbers, length of the name, no checksum.
        let fields = [self.count, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, path.len() as u32 + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
