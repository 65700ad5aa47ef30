//! Volumes: making, finding and deleting them. Where the pool's directory is ours to write we do so ourselves; everywhere else through libvirt, so that an
//! ordinary user can work.

use super::errors::{Doing as _, failed};
use crate::{
    model::{Content, NewVolume, PoolRef, is_made_for},
    qcow2,
    settings::CloneKind,
};
use std::path::Path;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use vmoon_core::{Code, Error, MachineId, Result};
use vmoon_libvirt_wire::{
    Client, Domain, ErrorCode, Pool, Volume,
    flags::{PoolStart, VolumeCreate, VolumeDelete, VolumeResize},
};
use vmoon_sys::image;
use vmoon_xml::Element;

/// The name of a base is within the first bytes of an image; looking at many, no more is read.
const NAME_IN: usize = 4096;

/// No seed of ours is larger, bytes.
const LARGEST_SEED: u64 = 17 << 20;

/// Does something with files on a thread that may wait.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Error::internal("work on files failed").source(error)))
}

/// The error of a file that is here and that libvirt does not find: one that runs in a container, or in a mount namespace of its own, may have others at that path.
pub(crate) fn unseen(path: &str) -> Error {
    Error::new(Code::DriverFailed, format!("libvirt does not find {path}: it sees other files there than this computer"))
        .hint("run vmoon where libvirtd runs, or take a folder that both see")
}

/// Storage of one hypervisor.
pub(crate) struct Storage<'a> {
    pub(crate) client: &'a Client,
    /// Whether its files are on this computer.
    pub(crate) local: bool,
}

/// A file of which disks are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) path: String,
    pub(crate) format: String,
    /// Bytes a guest sees.
    pub(crate) size: u64,
}

impl Storage<'_> {
    /// Whether we write into this pool ourselves.
    fn ours_to_write(&self, pool: &PoolRef) -> bool {
        self.local && pool.files && image::may_write(Path::new(&pool.target))
    }

    async fn pool(&self, name: &str) -> Result<Pool> {
        let pool = self.client.pool_named(name).await.doing("find the storage pool")?;
        if !self.client.pool_is_active(&pool).await.doing("look at the storage pool")? {
            self.client.pool_start(&pool, PoolStart::NONE).await.doing("start the storage pool")?;
        }
        Ok(pool)
    }

    /// The volume at a path, also if it was put there behind libvirt's back.
    pub(crate) async fn volume_at(&self, path: &str) -> Result<Option<Volume>> {
        match self.client.volume_at(path).await {
            Ok(volume) => return Ok(Some(volume)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(failed("find the volume", error)),
        }
        let Some(directory) = Path::new(path).parent().and_then(Path::to_str) else { return Ok(None) };
        let Ok(pool) = self.client.pool_at(directory).await else { return Ok(None) };
        if self.client.pool_refresh(&pool).await.is_err() {
            return Ok(None);
        }
        match self.client.volume_at(path).await {
            Ok(volume) => Ok(Some(volume)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(failed("find the volume", error)),
        }
    }

    /// Whether there is a file at that path of the hypervisor's host. Elsewhere only pools can be seen: outside of them a file is believed to be there, and
    /// libvirt says so when it is not.
    pub(crate) async fn exists(&self, path: &str) -> Result<bool> {
        if self.volume_at(path).await?.is_some() {
            return Ok(true);
        }
        if self.local {
            let path = path.to_owned();
            return blocking(move || Ok(Path::new(&path).exists())).await;
        }
        let directory = path.rsplit_once('/').map(|(directory, _)| directory).unwrap_or_default();
        match self.client.pool_at(directory).await {
            Ok(_) => Ok(false),
            Err(error) if error.is_not_found() => Ok(true),
            Err(error) => Err(failed("look for the image", error)),
        }
    }

    /// Whether libvirt finds the file behind a disk of a domain, by the disk's target or the file's path. Only of files of this computer it is asked: elsewhere
    /// nobody has said that they are there.
    ///
    /// # Errors
    /// [`unseen`].
    pub(crate) async fn is_seen(&self, domain: &Domain, disk: &str, file: &str) -> Result<()> {
        if !self.local || !file.starts_with('/') || file.starts_with("/dev/") {
            return Ok(());
        }
        let length = {
            let file = file.to_owned();
            blocking(move || Ok(std::fs::metadata(file).map_or(0, |file| file.len()))).await?
        };
        match self.client.block_info(domain, disk).await {
            // Of a domain that is off, libvirt passes over a file that it cannot open, and says that nothing is in it.
            Ok(info) if info.capacity == 0 && info.physical == 0 && length > 0 => Err(unseen(file)),
            // What is no disk of the domain, or has ended, says nothing.
            Err(error) if error.refusal().is_some() && !matches!(error.code(), Some(ErrorCode::INVALID_ARG | ErrorCode::NO_DOMAIN)) => {
                Err(unseen(file).source(error))
            }
            _ => Ok(()),
        }
    }

    /// Looks at an image that is to be a base.
    pub(crate) async fn base(&self, path: &str) -> Result<Base> {
        if let Some(volume) = self.volume_at(path).await? {
            let what = "look at the base image";
            let text = self.client.volume_xml(&volume).await.doing(what)?;
            let info = self.client.volume_info(&volume).await.doing(what)?;
            let format = Element::parse(&text)?.at("target/format").and_then(|format| format.attribute("type").map(str::to_owned));
            return Ok(Base { path: path.to_owned(), format: format.unwrap_or_else(|| "raw".into()), size: info.capacity });
        }
        let owned = path.to_owned();
        let (head, length) = blocking(move || {
            let failed = |error| Error::io(format_args!("read the base image {owned}"), error);
            let length = std::fs::metadata(&owned).map_err(failed)?.len();
            Ok((image::head(Path::new(&owned), qcow2::HEAD).map_err(failed)?, length))
        })
        .await?;
        Ok(match qcow2::Header::read(&head)? {
            Some(header) => Base { path: path.to_owned(), format: "qcow2".into(), size: header.size },
            None => Base { path: path.to_owned(), format: "raw".into(), size: length },
        })
    }

    /// Makes a volume; one of that name that a cut-off try has left is replaced.
    pub(crate) async fn make(&self, pool: &PoolRef, name: &str, volume: &NewVolume, seed: Option<Vec<u8>>) -> Result<()> {
        match &volume.content {
            Content::Seed | Content::Again { .. } => self.put(pool, name, vec![(0, seed.unwrap_or_default())], None).await,
            Content::Empty if volume.format == "raw" => self.raw(pool, name, volume.size).await,
            Content::Empty => {
                let image = qcow2::image(volume.size, None)?;
                self.put(pool, name, image.pieces, Some(image.length)).await
            }
            Content::Base { path, clone: CloneKind::Linked } => {
                let base = self.base(path).await?;
                let size = volume.size.max(base.size);
                let image = qcow2::image(size, Some(&qcow2::Base { path: &base.path, format: &base.format }))?;
                self.put(pool, name, image.pieces, Some(image.length)).await
            }
            Content::Base { path, clone: CloneKind::Full } => self.copy(pool, name, volume, path).await,
        }
    }

    /// Makes an overlay of an image at a path beside it.
    pub(crate) async fn overlay(&self, base: &str, path: &str) -> Result<()> {
        let base = self.base(base).await?;
        let image = qcow2::image(base.size, Some(&qcow2::Base { path: &base.path, format: &base.format }))?;
        let outside = || Error::new(Code::DriverFailed, format!("{path} is in no storage pool"));
        let (target, name) = path.rsplit_once('/').ok_or_else(outside)?;
        let mut pool = PoolRef { name: String::new(), target: target.to_owned(), files: true };
        if !self.ours_to_write(&pool) {
            pool.name = self.client.pool_at(target).await.map_err(|_| outside())?.name;
        }
        self.put(&pool, name, image.pieces, Some(image.length)).await
    }

    /// Puts these bytes into a new file of the pool.
    async fn put(&self, pool: &PoolRef, name: &str, pieces: Vec<(u64, Vec<u8>)>, length: Option<u64>) -> Result<()> {
        let end = pieces.iter().map(|(at, piece)| at + piece.len() as u64).max().unwrap_or(0);
        let length = length.unwrap_or(end);
        if self.ours_to_write(pool) {
            let path = Path::new(&pool.target).join(name);
            return blocking(move || image::create(&path, &pieces, length)).await;
        }
        let volume = self.create(pool, name, "raw", length, None).await?;
        // What is put is small: one stream for all of it, holes included.
        let mut whole = vec![0; length as usize];
        for (at, piece) in pieces {
            whole[at as usize..at as usize + piece.len()].copy_from_slice(&piece);
        }
        let mut stream = self.client.volume_upload(&volume, 0, length).await.doing("write the volume")?;
        let hint = || format!("virsh pool-info {} shows what is free there", pool.name);
        let io = |error: std::io::Error| {
            // libvirt's own words: over a stream it tells no number.
            let full = error.to_string().contains("No space left on device");
            let code = if full { Code::DiskFull } else { Code::DriverFailed };
            Error::new(code, format!("libvirt could not write {name} in the pool {}", pool.name)).source(error).hint(hint())
        };
        stream.write_all(&whole).await.map_err(io)?;
        stream.shutdown().await.map_err(io)?;
        // libvirt 9.0 may say that all is well also where there was no room for it (`virsh vol-upload` ends with 0): what it has is looked at.
        let back = self.client.volume_download(&volume, 0, length).await.doing("read the volume back")?;
        let mut found = Vec::with_capacity(whole.len());
        let read = back.take(length).read_to_end(&mut found).await;
        if read.is_ok() && found == whole {
            return Ok(());
        }
        Err(Error::new(
            Code::DriverFailed,
            format!("libvirt has not written all of {name}, although it says so: the pool {} may be full", pool.name),
        )
        .hint(hint()))
    }

    async fn raw(&self, pool: &PoolRef, name: &str, size: u64) -> Result<()> {
        if self.ours_to_write(pool) {
            let path = Path::new(&pool.target).join(name);
            return blocking(move || image::create(&path, &[], size)).await;
        }
        self.create(pool, name, "raw", size, None).await.map(drop)
    }

    async fn copy(&self, pool: &PoolRef, name: &str, volume: &NewVolume, from: &str) -> Result<()> {
        let Some(original) = self.volume_at(from).await? else {
            return Err(Error::new(Code::SpecInvalid, format!("{from} is in no storage pool, so libvirt cannot copy it"))
                .hint("put it into a pool (virsh vol-upload), make its directory one (virsh pool-create-as), or ask for clone=linked"));
        };
        let base = self.base(from).await?;
        let copy = self.create(pool, name, &volume.format, base.size, Some(&original)).await?;
        if volume.size > base.size {
            self.client.volume_resize(&copy, volume.size, VolumeResize::NONE).await.doing("make the copy larger")?;
        }
        Ok(())
    }

    /// The seed at that path, for this machine.
    pub(crate) async fn renewed(&self, from: &str, id: MachineId) -> Result<Vec<u8>> {
        let unread = || Error::new(Code::DriverFailed, format!("{from} cannot be read"));
        let volume = self.volume_at(from).await?.ok_or_else(unread)?;
        let content = self.client.volume_download(&volume, 0, 0).await.doing("read the volume")?;
        let mut whole = Vec::new();
        content.take(LARGEST_SEED).read_to_end(&mut whole).await.map_err(|error| unread().source(error))?;
        // What was made by an older vmoon, or is for another system, is given as it is.
        vmoon_seed::cloud::renew(&mut whole, id);
        Ok(whole)
    }

    /// Makes a volume by libvirt: empty, or a copy.
    async fn create(&self, pool: &PoolRef, name: &str, format: &str, size: u64, original: Option<&Volume>) -> Result<Volume> {
        let xml = Element::new("volume")
            .leaf("name", name)
            .child(Element::new("capacity").with("unit", "bytes").text(size))
            .child(Element::new("allocation").with("unit", "bytes").text(0))
            .child(Element::new("target").child(Element::new("format").with("type", format)))
            .to_text();
        let pool = self.pool(&pool.name).await?;
        let make = async || match original {
            Some(original) => self.client.volume_create_from(&pool, &xml, original, VolumeCreate::NONE).await,
            None => self.client.volume_create(&pool, &xml, VolumeCreate::NONE).await,
        };
        let made = match make().await {
            Err(error) if error.code() == Some(ErrorCode::STORAGE_VOL_EXIST) => {
                // The name holds the machine's id: it is the remainder of a cut-off try.
                let left = self.client.volume_named(&pool, name).await.doing("find the volume")?;
                self.client.volume_delete(&left, VolumeDelete::NONE).await.doing("delete the volume")?;
                make().await
            }
            made => made,
        };
        made.doing(if original.is_some() { "copy the disk" } else { "make the volume" })
    }

    /// Deletes the volume or file at a path; that it is missing is fine.
    pub(crate) async fn delete(&self, path: &str) -> Result<()> {
        let directory = Path::new(path).parent().map(Path::to_owned).unwrap_or_default();
        if self.local && image::may_write(&directory) {
            let owned = path.to_owned();
            return blocking(move || match std::fs::remove_file(&owned) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(format_args!("delete {owned}"), error)),
                _ => Ok(()),
            })
            .await;
        }
        match self.volume_at(path).await? {
            Some(volume) => match self.client.volume_delete(&volume, VolumeDelete::NONE).await {
                Err(error) if !error.is_not_found() => Err(failed("delete the volume", error)),
                _ => Ok(()),
            },
            None => Ok(()),
        }
    }

    /// The paths of everything in a directory of a pool that was made for the machine.
    pub(crate) async fn made_for(&self, id: MachineId, directory: &str) -> Result<Vec<String>> {
        if self.local && image::may_write(Path::new(directory)) {
            let owned = directory.to_owned();
            return blocking(move || {
                let entries = std::fs::read_dir(&owned).map_err(|error| Error::io(format_args!("look into {owned}"), error))?;
                let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
                Ok(names.filter(|name| is_made_for(name, id)).map(|name| format!("{owned}/{name}")).collect())
            })
            .await;
        }
        let Ok(pool) = self.client.pool_at(directory).await else { return Ok(Vec::new()) };
        let what = "list the volumes";
        self.client.pool_refresh(&pool).await.doing(what)?;
        let mut paths = Vec::new();
        for volume in self.client.volumes(&pool).await.doing(what)?.into_iter().filter(|volume| is_made_for(&volume.name, id)) {
            paths.push(self.client.volume_path(&volume).await.doing(what)?);
        }
        Ok(paths)
    }

    /// The base that the image at a path names, if it has one.
    pub(crate) async fn base_of(&self, path: &str) -> Result<Option<String>> {
        let owned = path.to_owned();
        if self.local
            && let Ok(Ok(head)) = tokio::task::spawn_blocking(move || image::head(Path::new(&owned), NAME_IN)).await
        {
            return Ok(qcow2::Header::read(&head).ok().flatten().and_then(|header| header.base));
        }
        let Some(volume) = self.volume_at(path).await? else { return Ok(None) };
        match self.client.volume_xml(&volume).await {
            Ok(text) => Ok(Element::parse(&text)?.text_at("backingStore/path").filter(|base| !base.is_empty())),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(failed("look at the volume", error)),
        }
    }

    /// Every image in the directory, by path.
    pub(crate) async fn images_in(&self, directory: &str) -> Result<Vec<String>> {
        let owned = directory.to_owned();
        if self.local
            && let Ok(Ok(entries)) = tokio::task::spawn_blocking(move || std::fs::read_dir(owned)).await
        {
            return Ok(entries.flatten().filter_map(|entry| entry.path().to_str().map(str::to_owned)).collect());
        }
        let Ok(pool) = self.client.pool_at(directory).await else { return Ok(Vec::new()) };
        let what = "list the volumes";
        // The key of a volume that is a file is its path.
        Ok(self.client.volumes(&pool).await.doing(what)?.into_iter().map(|volume| volume.key).collect())
    }
}
