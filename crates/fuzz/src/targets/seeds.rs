//! What is well formed, so that nobody has to find out by chance how it begins.

use vmoon_core::frame::{Call, Eval, Failure, FailureKind, Frame};
use vmoon_libvirt_wire::{
    Domain, Procedure,
    frame::{Header, Kind, Status},
    xdr::{Encode as _, Encoder},
};
use vmoon_lua_wire::hello::{ClientHello, HolderHello};

/// Texts as bytes.
fn texts<const N: usize>(texts: [&str; N]) -> Vec<Vec<u8>> {
    texts.map(|text| text.as_bytes().to_vec()).into()
}

/// One frame of each tag, and whole commands.
pub(crate) fn frames() -> Vec<Vec<u8>> {
    let eval = Eval { deadline_ms: 5, token: b"token", code: b"return 1" };
    let call = Call { data: true, arguments: b"[1]", eval };
    let failure = Failure { kind: FailureKind::Runtime, message: b"m", traceback: b"t" };
    let payloads: [(u8, Vec<u8>); 14] = [
        (b'E', eval.to_vec()),
        (b'J', call.to_vec()),
        (b'O', b"out".to_vec()),
        (b'R', b"err".to_vec()),
        (b'V', b"42".to_vec()),
        (b'T', br#"{"values":[1,{"a":null}],"unfit":[{"path":"[1]","why":"a function"}]}"#.to_vec()),
        (b'X', failure.to_vec()),
        (b'N', b"<eof>".to_vec()),
        (b'W', Vec::new()),
        (b'D', 7u64.to_le_bytes().to_vec()),
        (b'Z', 3i32.to_le_bytes().to_vec()),
        (b'G', 9u64.to_le_bytes().to_vec()),
        (b'k', br#"{"busy":false,"from":1,"names":["print"]}"#.to_vec()),
        (b'c', b"iunfinished".to_vec()),
    ];
    let one = |(tag, payload): &(u8, Vec<u8>)| Frame { tag: *tag, id: 1, payload }.to_vec();
    let whole = payloads.iter().map(one).collect::<Vec<_>>().concat();
    payloads.iter().map(one).chain([whole]).collect()
}

/// A console that says something and is read.
pub(crate) fn scrollback() -> Vec<Vec<u8>> {
    let talk = [&[0u8; 8][..], b"\0\x05hello\x03\x12\x01\0\x03\x20\x02\x10\x03\xff"].concat();
    let long: Vec<u8> = (0..12).flat_map(|_| [&b"\0\x20"[..], &[b'x'; 32], b"\x03\x80"].concat()).collect();
    vec![talk, [&7u64.to_le_bytes()[..], &long].concat()]
}

/// Both hellos.
pub(crate) fn hello() -> Vec<Vec<u8>> {
    let refusal = br#"{"protocol":2,"error":{"code":"wire.version","message":"m"},"at":1,"end":2,"running":3}"#.to_vec();
    vec![ClientHello::new("key", 17).to_vec(), HolderHello { at: 5, end: 9, ..HolderHello::default() }.to_vec(), refusal]
}

/// Frames as lines, after the size of the parts they come in.
pub(crate) fn text() -> Vec<Vec<u8>> {
    texts(["\x05O 1 5 1\nhelloV 1 2 2\n42D 1 0 3\n", "\x40X 2 9 4\nr3\nabctr\nK 0 6 5\n3 name\n", "\x07h 0 4 1\nx=y\n"])
}

/// What zygotes and holders say.
pub(crate) fn records() -> Vec<Vec<u8>> {
    texts([
        r#"{"hello":{"version":1,"min_version":1,"process":{"pid":1,"start":2,"boot":"b"}}}"#,
        r#"{"forked":{"pid":7}}"#,
        r#"{"failed":{"error":"e"}}"#,
        r#""settled""#,
        r#"{"ready":{"descriptors":[3,4],"runtime":"Lua 5.4"}}"#,
        r#"{"refused":{"why":["a"]}}"#,
        r#"{"key":"k","process":{"pid":1,"start":2,"boot":"b"},"life":3,"runtime":"builtin","layers":{"layers":[]}}"#,
        r#"{"kind":"code","code":0}"#,
        r#""killed""#,
    ])
}

/// Messages of an item, after the size of the parts they come in.
pub(crate) fn item() -> Vec<Vec<u8>> {
    vec![b"\x07p\x03\0\0\0abcr\x03\0\0\0[1]".to_vec(), b"\x40x\x04\0\0\0\x03\0\0\0e\x01\0\0\0w".to_vec()]
}

/// Words at their places.
pub(crate) fn ring() -> Vec<Vec<u8>> {
    let word = |place: u16, value: u64| [&place.to_le_bytes()[..], &value.to_le_bytes()].concat();
    vec![word(2, 100), [word(3, 2 << 32 | 1), word(4, 1 << 32 | 3)].concat(), [word(17, 5), word(20, 5)].concat()]
}

/// An envelope of each kind of piece, after the size of the parts it comes in, and the head of an ELF file.
pub(crate) fn host() -> Vec<Vec<u8>> {
    let mut stream = Vec::new();
    Frame { tag: b'O', id: 1, payload: b"out" }.encode(&mut stream);
    let mut envelope = b"\x20h 3 0 1 1 sig -1 0 77\ng 5\n".to_vec();
    envelope.extend_from_slice(format!("o {}\n", stream.len()).as_bytes());
    envelope.extend_from_slice(&stream);
    envelope.extend_from_slice(b"d 9\n3 0 1 1 9e signal 9\nnone\nx\n");
    let mut elf = b"\x01\x7fELF\x02\x01\x01".to_vec();
    elf.resize(130, 0);
    vec![envelope, b"\x01e 3\n".to_vec(), elf]
}

/// A message of each kind.
pub(crate) fn libvirt() -> Vec<Vec<u8>> {
    let message = |procedure: Procedure, kind: Kind, body: &dyn Fn(&mut Encoder)| {
        let mut encoder = Encoder::default();
        body(&mut encoder);
        let header =
            Header { program: procedure.program(), version: 1, procedure: procedure.number(), kind, serial: 1, status: Status::Ok };
        let whole = encoder.finish().and_then(|body| header.message(&body)).unwrap_or_default();
        whole.get(4..).unwrap_or_default().to_vec()
    };
    let domain = Domain { name: "d".into(), ..Domain::of(Default::default()) };
    vec![
        message(Procedure::DomainEventCallbackLifecycle, Kind::Message, &|to| (1i32, domain.clone(), (2i32, 3i32)).encode(to)),
        message(Procedure::DomainEventCallbackDeviceAdded, Kind::Message, &|to| (1i32, domain.clone(), "disk".to_owned()).encode(to)),
        message(Procedure::NetworkEventLifecycle, Kind::Message, &|to| (1i32, "n".to_owned(), domain.uuid, 1i32, 2i32).encode(to)),
        message(Procedure::AuthList, Kind::Reply, &|to| (vec![domain.clone()], 1u32).encode(to)),
        message(Procedure::AuthList, Kind::Reply, &|to| vec![(domain.clone(), vec![("state.state".to_owned(), 1i32, 5i32)])].encode(to)),
    ]
}

/// Answers, results of tasks, statistics.
pub(crate) fn xapi() -> Vec<Vec<u8>> {
    texts([
        r#"{"jsonrpc":"2.0","result":{"uuid":"u","name_label":"n","VCPUs_max":"4","power_state":"Running","other_config":{"a":"b"}},"id":7}"#,
        r#"{"result":["OpaqueRef:NULL"],"error":null,"id":7}"#,
        r#"{"jsonrpc":"2.0","error":{"code":1,"message":"X","data":["r"]},"id":7}"#,
        r#"{"result":{"events":[{"id":"1","class":"vm","operation":"mod","ref":"r","snapshot":{"a":1}}],"token":"1,0","valid_ref_counts":{"vm":1}},"id":7}"#,
        "<value><array><data><value>r</value><value><int>7</int></value></data></array></value>",
        "<value><struct><member><name>a &lt; b</name><value><boolean>1</boolean></value></member></struct></value>",
        "<xport><meta><step>5</step><legend><entry>AVERAGE:vm:u:cpu0</entry></legend></meta><data><row><t>1</t><v>0.5</v></row></data></xport>",
        "HTTP/1.1 302 Found\r\nLocation: https://h/x",
        "https://10.9.0.1:8443/console?uuid=a-b&session_id=x",
        "20261120T18:36:45Z",
    ])
}

/// A domain, and whatever XML can have.
pub(crate) fn xml() -> Vec<Vec<u8>> {
    texts([
        "<domain type='kvm'><name>a &amp; b</name><memory unit='KiB'>1024</memory><devices><disk/><!-- x --></devices></domain>",
        "<?xml version='1.0'?><a b=\"&#65;\"><![CDATA[<x>]]>&lt;</a>",
    ])
}
