//! Small ISO 9660 images with Joliet names, made in memory: a seed for cloud-init or Windows Setup. Pure.
//!
//! Layout as in ECMA-119: sixteen empty sectors, a primary and a supplementary (Joliet) descriptor, path tables, the two root
//! directories, files. One flat directory is all that seeds need. The same content gives the same bytes.

use vmoon_core::{Code, Error, Result};

const SECTOR: usize = 2048;
/// The largest seed, bytes: user data is text.
const MAX_BYTES: usize = 16 << 20;
/// 1 January 2000, in the seven bytes of a directory record: the same content gives the same image.
const DATE: [u8; 7] = [100, 1, 1, 0, 0, 0, 0];
/// The same in the seventeen bytes of a descriptor; the last one is the time zone.
const LONG_DATE: [u8; 17] = *b"2000010100000000\0";
const NO_DATE: [u8; 17] = *b"0000000000000000\0";

/// A file of the image.
#[derive(Clone, Debug)]
pub struct File {
    /// Its name: ASCII, at most 30 characters.
    pub name: &'static str,
    /// What it holds.
    pub content: Vec<u8>,
}

/// The two name spaces of an image.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    Primary,
    Joliet,
}

impl Names {
    /// How the name stands in a directory.
    fn identifier(self, name: &str) -> Vec<u8> {
        match self {
            // Upper case, digits and underscores with one dot and a version: any reader takes it.
            Names::Primary => {
                let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
                let plain = |text: &str| -> String {
                    text.chars().map(|char| if char.is_ascii_alphanumeric() { char.to_ascii_uppercase() } else { '_' }).collect()
                };
                format!("{}.{};1", plain(stem), plain(extension)).into_bytes()
            }
            Names::Joliet => name.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        }
    }

    /// A text field of a descriptor, filled up with blanks.
    fn field(self, text: &str, length: usize) -> Vec<u8> {
        match self {
            Names::Primary => {
                let mut field = text.as_bytes().to_vec();
                field.resize(length, b' ');
                field
            }
            Names::Joliet => {
                let blanks = std::iter::repeat(u16::from(b' '));
                let mut field: Vec<u8> = text.encode_utf16().chain(blanks).take(length / 2).flat_map(u16::to_be_bytes).collect();
                field.resize(length, 0);
                field
            }
        }
    }
}

fn both16(value: u16) -> Vec<u8> {
    [value.to_le_bytes(), value.to_be_bytes()].concat()
}

fn both32(value: usize) -> Vec<u8> {
    let value = value as u32;
    [value.to_le_bytes(), value.to_be_bytes()].concat()
}

fn record(identifier: &[u8], sector: usize, bytes: usize, directory: bool) -> Vec<u8> {
    let mut record = vec![0, 0];
    record.extend(both32(sector));
    record.extend(both32(bytes));
    record.extend(DATE);
    record.extend([u8::from(directory) << 1, 0, 0]);
    record.extend(both16(1));
    record.push(identifier.len() as u8);
    record.extend(identifier);
    if record.len() % 2 == 1 {
        record.push(0);
    }
    record[0] = record.len() as u8;
    record
}

/// A directory: itself, its parent (itself again), its files by name. No record crosses a sector's end.
fn directory(names: Names, sector: usize, sectors: usize, files: &[(&File, usize)]) -> Vec<u8> {
    let bytes = sectors * SECTOR;
    let mut records = vec![record(&[0], sector, bytes, true), record(&[1], sector, bytes, true)];
    let mut named: Vec<_> = files.iter().map(|(file, at)| (names.identifier(file.name), *at, file.content.len())).collect();
    named.sort();
    records.extend(named.into_iter().map(|(identifier, at, len)| record(&identifier, at, len, false)));
    let mut out = Vec::new();
    for record in records {
        if out.len() % SECTOR + record.len() > SECTOR {
            out.resize(out.len().next_multiple_of(SECTOR), 0);
        }
        out.extend(record);
    }
    out
}

struct Layout {
    /// Sectors of the whole image.
    total: usize,
    little: usize,
    big: usize,
    root: usize,
    root_sectors: usize,
}

fn descriptor(names: Names, label: &str, layout: &Layout) -> Vec<u8> {
    let mut out = vec![if names == Names::Primary { 1 } else { 2 }];
    out.extend(b"CD001\x01\0");
    out.extend(names.field("", 32));
    out.extend(names.field(label, 32));
    out.extend([0; 8]);
    out.extend(both32(layout.total));
    // Joliet level 3 says so by this escape sequence.
    out.extend(if names == Names::Joliet { *b"%/E" } else { [0; 3] });
    out.extend([0; 29]);
    out.extend(both16(1));
    out.extend(both16(1));
    out.extend(both16(SECTOR as u16));
    out.extend(both32(PATH_TABLE));
    out.extend((layout.little as u32).to_le_bytes());
    out.extend([0; 4]);
    out.extend((layout.big as u32).to_be_bytes());
    out.extend([0; 4]);
    out.extend(record(&[0], layout.root, layout.root_sectors * SECTOR, true));
    for length in [128, 128, 128, 128, 37, 37, 37] {
        out.extend(names.field("", length));
    }
    for date in [LONG_DATE, LONG_DATE, NO_DATE, NO_DATE] {
        out.extend(date);
    }
    out.push(1);
    out.resize(SECTOR, 0);
    out
}

/// Bytes of a path table that names the root alone.
const PATH_TABLE: usize = 10;

fn path_table(root: usize, little: bool) -> Vec<u8> {
    let (at, parent) = (root as u32, 1u16);
    let mut out = vec![1, 0];
    out.extend(if little { at.to_le_bytes() } else { at.to_be_bytes() });
    out.extend(if little { parent.to_le_bytes() } else { parent.to_be_bytes() });
    out.extend([0, 0]);
    out.resize(SECTOR, 0);
    out
}

/// The image with these files.
///
/// # Errors
/// [`Code::SpecInvalid`] if they are larger than a seed may be.
pub fn image(label: &str, files: &[File]) -> Result<Vec<u8>> {
    let content: usize = files.iter().map(|file| file.content.len()).sum();
    if content > MAX_BYTES {
        return Err(Error::new(Code::SpecInvalid, format!("the seed would have {content} bytes; more than 16 MiB are not taken")));
    }
    // How many sectors the two directories take does not depend on where anything is.
    let nowhere: Vec<(&File, usize)> = files.iter().map(|file| (file, 0)).collect();
    let sectors = |names| directory(names, 0, 0, &nowhere).len().div_ceil(SECTOR);
    let (primary_sectors, joliet_sectors) = (sectors(Names::Primary), sectors(Names::Joliet));
    let (primary_root, tables) = (23, 19);
    let joliet_root = primary_root + primary_sectors;
    let mut next = joliet_root + joliet_sectors;
    let mut placed = Vec::new();
    for file in files {
        placed.push((file, next));
        next += file.content.len().div_ceil(SECTOR);
    }
    // Some drives read ahead past the end; readers expect room there.
    let total = next + 16;
    let primary = Layout { total, little: tables, big: tables + 1, root: primary_root, root_sectors: primary_sectors };
    let joliet = Layout { total, little: tables + 2, big: tables + 3, root: joliet_root, root_sectors: joliet_sectors };

    let mut out = Vec::with_capacity(total * SECTOR);
    out.resize(16 * SECTOR, 0);
    out.extend(descriptor(Names::Primary, label, &primary));
    out.extend(descriptor(Names::Joliet, label, &joliet));
    out.extend(b"\xffCD001\x01");
    out.resize(tables * SECTOR, 0);
    for (root, little) in [(primary_root, true), (primary_root, false), (joliet_root, true), (joliet_root, false)] {
        out.extend(path_table(root, little));
    }
    for (names, layout) in [(Names::Primary, &primary), (Names::Joliet, &joliet)] {
        out.extend(directory(names, layout.root, layout.root_sectors, &placed));
        out.resize(out.len().next_multiple_of(SECTOR), 0);
    }
    for (file, at) in placed {
        debug_assert!(file.content.is_empty() || out.len() == at * SECTOR);
        out.extend(&file.content);
        out.resize(out.len().next_multiple_of(SECTOR), 0);
    }
    out.resize(total * SECTOR, 0);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_files_fill_more_than_one_sector() {
        let names: Vec<&'static str> = vec!["autounattend.xml"; 60];
        let files: Vec<File> = names.iter().map(|name| File { name, content: vec![b'x'; 10] }).collect();
        let image = image("cidata", &files).unwrap();
        assert_eq!(image.len() % SECTOR, 0);
        assert_eq!(&image[16 * SECTOR + 1..16 * SECTOR + 6], b"CD001");
        assert_eq!(&image[16 * SECTOR + 40..16 * SECTOR + 46], b"cidata");
    }

    #[test]
    fn the_same_content_gives_the_same_image() {
        let files = [File { name: "user-data", content: b"x".to_vec() }, File { name: "meta-data", content: Vec::new() }];
        assert_eq!(image("cidata", &files).unwrap(), image("cidata", &files).unwrap());
        assert!(image("cidata", &[File { name: "user-data", content: vec![0; MAX_BYTES + 1] }]).is_err());
    }
}
