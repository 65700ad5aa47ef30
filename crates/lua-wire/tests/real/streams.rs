//! Output, input and exit.

use crate::session::{each, same};

#[test]
fn output_is_exact() {
    each(|s| {
        for (code, want) in [
            ("print('a', nil, 1, true)", &b"a\tnil\t1\ttrue\n"[..]),
            ("print()", b"\n"),
            ("io.write('  a', 1, 2.5, '\\n\\n ')", b"  a12.5\n\n "),
            ("io.write('\\0\\255\\r\\n')", b"\0\xff\r\n"),
            ("print('h\\195\\169')", "h\u{e9}\n".as_bytes()),
            ("io.stdout:write('x'):write('y')", b"xy"),
            ("print('O 1 5 1\\nhello') io.write('D 1 0 99\\n')", b"O 1 5 1\nhello\nD 1 0 99\n"),
            ("for i = 1, 3 do print(i) end", b"1\n2\n3\n"),
            ("io.output():write('via output')", b"via output"),
            ("print(setmetatable({}, {__tostring = function() return 'T' end}))", b"T\n"),
        ] {
            let got = s.eval(code);
            same(s.name, got.out, want.to_vec());
            same(s.name, got.err, b"".to_vec());
        }
        let got = s.eval("io.stderr:write('e1') io.write('o') io.stderr:write('e2')");
        same(s.name, (got.out, got.err), (b"o".to_vec(), b"e1e2".to_vec()));
        let got = s.eval("print(('x'):rep(5000000)) io.write(('y'):rep(3))");
        same(s.name, got.out.len(), 5_000_004);
        let got = s.eval("for i = 1, 20000 do io.write(i, ' ') end");
        let want: String = (1..=20_000).map(|i| format!("{i} ")).collect();
        same(s.name, got.text(), want);
    });
}

#[test]
fn the_standard_handles_stay_files() {
    each(|s| {
        for (code, want) in [
            ("io.type(io.stdout), io.type(io.stdin), io.type(io.stderr), type(io.stdout)", "file\tfile\tfile\tuserdata"),
            ("io.stdout:setvbuf('no'), io.stdout:flush() == io.stdout", "true\ttrue"),
            ("io.stdout:close()", "nil\tcannot close standard file"),
            ("io.stdout:seek()", "nil\tIllegal seek\t29"),
            ("io.stdout:write('') == io.stdout", "true"),
            ("io.output() == io.stdout, io.input() == io.stdin", "true\ttrue"),
            ("io.type(42)", "nil"),
        ] {
            let got = s.eval(code);
            same(s.name, got.value(), want);
        }
        for (code, want) in [
            ("io.write({})", "bad argument #1 to 'write' (string expected, got table)"),
            ("io.stdout:write('a', nil)", "bad argument #2 to 'write' (string expected, got nil)"),
            ("io.read('*x')", "bad argument #1 to 'read' (invalid format)"),
            ("local x = io.read({})", "bad argument #1 to 'read' (string expected, got table)"),
            ("local x = os.exit({})", "bad argument #1 to 'exit' (number expected, got table)"),
        ] {
            let got = s.eval(code);
            assert!(got.failure().1.ends_with(want), "{}: {code}: {got:?}", s.name);
        }
        let got = s.eval("local x = io.write({})");
        assert!(got.failure().1.starts_with("stdin:1: "), "{}: {got:?}", s.name);
        let other = "local n = os.tmpname() local f = assert(io.open(n, 'w')) f:write('one\\n', 2, '\\n') f:close() \
            for l in io.lines(n) do io.write('[', l, ']') end io.input(n) io.write(io.read('*a')) io.input():close() io.input(io.stdin) \
            io.output(n) io.write('gone') io.close() io.output(io.stdout) print(io.open(n):read('*a')) os.remove(n)";
        let got = s.eval(other);
        same(s.name, (got.text(), got.error), ("[one][2]one\n2\ngone\n".to_owned(), None));
    });
}

#[test]
fn input_is_asked_for_and_answered() {
    each(|s| {
        let cases: [(&str, &[&[u8]], &str, usize); 17] = [
            ("io.read()", &[b"line\n"], "line", 1),
            ("io.read('*l')", &[b"two ", b"parts\n"], "two parts", 2),
            ("io.read()", &[], "nil", 1),
            ("io.read('*l')", &[b"no end"], "no end", 2),
            ("io.read('*l', '*l')", &[b"a\nb\n"], "a\tb", 1),
            ("io.read(3), io.read(0), io.read('*l')", &[b"abcdef\n"], "abc\t\tdef", 1),
            ("io.read(0)", &[], "nil", 1),
            ("io.read(10)", &[b"abc"], "abc", 2),
            ("io.read('*a')", &[b"all\0\xc3\xa9", b"\nof it"], "all\0\u{e9}\nof it", 3),
            ("io.read('*a')", &[], "", 1),
            ("io.read('*n', '*n', '*l')", &[b" 12 -3 rest\n"], "12\t-3\t rest", 1),
            ("io.read('*n')", &[b"zz\n"], "nil", 1),
            ("io.read('*l')", &[], "zz", 0),
            ("io.read('*n')", &[b"0x1F\n"], "31", 1),
            ("io.stdin:read('*l'), io.read('*l')", &[b"x\n"], "\tx", 1),
            ("(function() local n = 0 for l in io.lines() do n = n + #l end return n end)()", &[b"ab\nc\n"], "3", 2),
            ("(function() local r = '' for l in io.stdin:lines() do r = r .. l .. ';' end return r end)()", &[b"ab\n\nc"], "ab;;c;", 3),
        ];
        for (code, input, want, asked) in cases {
            let got = s.eval_with(code, input);
            same(s.name, (code, got.value(), got.asked), (code, want, asked));
        }
        if s.name != "lua5.1" && s.name != "luajit" {
            same(s.name, s.eval_with("io.read('*L')", &[b"kept\n"]).value(), "kept\n");
        }
        let bare = s.eval_with("io.read('l')", &[b"x\n"]);
        if s.name == "lua5.3" || s.name == "lua5.4" || s.name == "luajit" {
            assert!(s.name == "luajit" || bare.value() == "x", "{}: {bare:?}", s.name);
        } else {
            assert!(bare.failure().1.ends_with("(invalid option)"), "{}: {bare:?}", s.name);
        }
        let got = s.eval_with("io.write('name? ') local n = io.read() print('hi ' .. n)", &[b"Ada\n"]);
        same(s.name, got.text(), "name? hi Ada\n");
    });
}

#[test]
fn coroutines_print_read_and_yield() {
    each(|s| {
        let code = "local co = coroutine.wrap(function(a) print('in', a) local l = io.read() local b = coroutine.yield(l) error('end ' .. b) end) \
            print(co(1)) print(pcall(co, 2)) print(coroutine.status(coroutine.create(print)))";
        let got = s.eval_with(code, &[b"typed\n"]);
        assert!(got.text().starts_with("in\t1\ntyped\nfalse\t") && got.text().ends_with("end 2\nsuspended\n"), "{}: {got:?}", s.name);
        let got = s.eval("coroutine.wrap(function() error({}) end)()");
        same(s.name, got.failure().0, 'r');
    });
}

#[test]
fn exit_gives_the_code() {
    for (code, want) in [("os.exit(3)", 3), ("os.exit()", 0), ("os.exit(0)", 0), ("print('bye') os.exit(255)", 255), ("os.exit('7')", 7)] {
        each(|s| {
            let got = s.eval(code);
            same(s.name, got.exit, Some(want));
            same(s.name, s.wait(), Some(want));
            same(s.name, got.out.is_empty(), !code.contains("bye"));
        });
    }
    for (code, want) in [("os.exit(true)", 0), ("os.exit(false)", 1)] {
        each(|s| {
            let got = s.eval(code);
            if s.name == "lua5.1" {
                return assert!(got.failure().1.contains("number expected, got boolean"), "{got:?}");
            }
            same(s.name, got.exit, Some(want));
            same(s.name, s.wait(), Some(want));
        });
    }
    each(|s| {
        s.send(b'Q', 0, b"");
        same(s.name, s.wait(), Some(0));
    });
}

#[test]
fn finalizers_may_print_at_any_moment() {
    each(|s| {
        let code = "local n, new = 0, nil \
            local function finish() n = n + 1 io.write('f') if n < 200 then new() end end \
            if newproxy then new = function() getmetatable(newproxy(true)).__gc = finish end \
            else new = function() setmetatable({}, {__gc = finish}) end end \
            new() local count = 0 while n < 200 do print(('x'):rep(count % 50)) count = count + 1 if count % 100 == 0 then collectgarbage() end end \
            new = function() end return n, count";
        let got = s.eval(code);
        let count: usize = got.value().split('\t').nth(1).unwrap().parse().unwrap();
        same(s.name, got.out.iter().filter(|b| **b == b'f').count(), 200);
        same(s.name, got.out.iter().filter(|b| **b == b'\n').count(), count);
    });
}

#[test]
fn children_are_announced() {
    each(|s| {
        let id = s.begin(b"print('before') os.execute('true') print('after')");
        let mut seen = Vec::new();
        loop {
            let frame = s.frame();
            same(s.name, frame.id, id);
            seen.push((frame.tag as char, String::from_utf8(frame.payload).unwrap()));
            if frame.tag == b'b' {
                s.send(b'A', 0, b"");
            }
            if frame.tag == b'D' {
                break;
            }
        }
        let want = [('O', "before\n"), ('b', ""), ('B', ""), ('O', "after\n"), ('D', "")].map(|(t, p)| (t, p.to_owned()));
        same(s.name, seen, want.to_vec());
    });
}
