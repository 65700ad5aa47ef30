//! Pools and volumes of a real libvirtd: making, filling, reading, copying, deleting.

use crate::daemon::connect;
use std::fs;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use vmoon_libvirt_lab::Lab;
use vmoon_libvirt_wire::{
    ErrorCode, Event, Topic,
    flags::{PoolStart, Pools, VolumeCreate, VolumeDelete, VolumeResize, Xml},
};

#[tokio::test]
async fn pools_and_volumes_from_beginning_to_end() {
    let lab = Lab::start();
    let client = connect(&lab, "qemu:///system").await;
    let mut events = client.watch(&[Topic::Pools, Topic::PoolRefresh]).await.expect("a listener");
    assert_eq!(events.unsupported(), []);
    let folder = lab.path().join("pool & <more>");
    let xml = "<pool type='dir'><name>disks</name><target><path>FOLDER</path></target></pool>";
    let xml = xml.replace("FOLDER", &folder.display().to_string().replace('&', "&amp;").replace('<', "&lt;"));
    let pool = client.pool_define(&xml).await.expect("defined");
    assert_eq!(events.next().await, Event::Pool { pool: pool.clone(), event: 0 });
    client.pool_build(&pool).await.expect("its folder");
    client.pool_start(&pool, PoolStart::NONE).await.expect("started");
    assert!(client.pool_is_active(&pool).await.expect("yes or no"));
    client.set_pool_autostart(&pool, true).await.expect("with the host");
    assert!(client.pool_autostart(&pool).await.expect("yes or no"));
    assert_eq!(client.pools(Pools::ACTIVE).await.expect("a list"), std::slice::from_ref(&pool));
    assert_eq!(client.pool_named("disks").await.expect("found"), pool);
    assert_eq!(client.pool(pool.uuid).await.expect("found"), pool);
    assert_eq!(client.pool_at(folder.to_str().expect("plain")).await.expect("found"), pool);
    assert!(client.pool_named("none").await.expect_err("none").is_not_found());
    assert!(client.pool_xml(&pool, Xml::INACTIVE).await.expect("XML").contains("pool &amp; &lt;more&gt;"));
    assert!(client.pool_info(&pool).await.expect("sizes").available > 0);

    let volume = |name: &str, bytes: u64| {
        format!("<volume><name>{name}</name><capacity>{bytes}</capacity><target><format type='raw'/></target></volume>")
    };
    const SIZE: usize = 5_000_000;
    let first = client.volume_create(&pool, &volume("first", SIZE as u64), VolumeCreate::NONE).await.expect("made");
    let taken = client.volume_create(&pool, &volume("first", 1), VolumeCreate::NONE).await.expect_err("the name is taken");
    assert_eq!(taken.code(), Some(ErrorCode::STORAGE_VOL_EXIST));

    let data: Vec<u8> = (0..SIZE).map(|at| (at / 7) as u8).collect();
    let mut upload = client.volume_upload(&first, 0, SIZE as u64).await.expect("open");
    upload.write_all(&data).await.expect("taken");
    upload.shutdown().await.expect("kept");
    let path = client.volume_path(&first).await.expect("a path");
    assert!(fs::read(&path).expect("we are root") == data, "what was sent is there");
    let mut download = client.volume_download(&first, 1000, 0).await.expect("open");
    let mut back = Vec::new();
    download.read_to_end(&mut back).await.expect("read");
    download.shutdown().await.expect("done");
    assert!(back == data[1000..], "what is there comes back");
    // More than the volume can hold is refused, and the writer hears of it.
    let mut upload = client.volume_upload(&first, SIZE as u64 - 10, 100).await.expect("open");
    let ended = async {
        upload.write_all(&data).await?;
        upload.shutdown().await
    };
    assert!(ended.await.is_err() || fs::metadata(&path).expect("there").len() <= SIZE as u64 + 90, "not everything was kept");

    let copy = client.volume_create_from(&pool, &volume("copy", SIZE as u64), &first, VolumeCreate::NONE).await.expect("copied");
    client.volume_resize(&copy, 8_000_000, VolumeResize::NONE).await.expect("larger");
    assert_eq!(client.volume_info(&copy).await.expect("sizes").capacity, 8_000_000);
    assert!(client.volume_xml(&copy).await.expect("XML").contains("<name>copy</name>"));
    assert_eq!(client.volume_at(&path).await.expect("found"), first);
    assert_eq!(client.volume_with_key(&first.key).await.expect("found"), first);
    assert_eq!(client.volume_named(&pool, "copy").await.expect("found"), copy);
    assert_eq!(client.pool_of(&copy).await.expect("found"), pool);
    fs::write(folder.join("foreign"), b"x").expect("a file of somebody else");
    assert_eq!(client.volumes(&pool).await.expect("a list").len(), 2);
    client.pool_refresh(&pool).await.expect("looked again");
    assert_eq!(client.volumes(&pool).await.expect("a list").len(), 3);
    while events.next().await != Event::PoolRefreshed(pool.clone()) {}

    client.volume_delete(&copy, VolumeDelete::NONE).await.expect("gone");
    assert_eq!(client.volume_delete(&copy, VolumeDelete::NONE).await.expect_err("gone").code(), Some(ErrorCode::NO_STORAGE_VOL));
    client.pool_stop(&pool).await.expect("stopped");
    client.pool_undefine(&pool).await.expect("forgotten");
    assert!(client.pool(pool.uuid).await.expect_err("gone").is_not_found());
    assert!(folder.join("first").exists(), "what is in a pool stays");
}
