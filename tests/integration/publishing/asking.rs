use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::routes::{NDJSON, route};
use crate::support::gateway::Setup;
use crate::support::post::post;

/// A server that answers each read with what `answer` makes of it, in capitals; `None`: it closes the connection.
fn node(listener: TcpListener, answer: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) {
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = answer.clone();
            std::thread::spawn(move || serve(stream, &*answer));
        }
    });
}

fn serve(mut stream: TcpStream, answer: &dyn Fn(&str) -> Option<Vec<u8>>) {
    let mut bytes = [0; 16 << 10];
    while let Ok(read @ 1..) = stream.read(&mut bytes) {
        let asked = String::from_utf8_lossy(&bytes[..read]).to_uppercase();
        let Some(answer) = answer(&asked) else { return };
        if stream.write_all(&answer).is_err() {
            return;
        }
    }
}

fn common(asked: &str) -> Vec<u8> {
    let known = [("PING", "+PONG\r\n"), ("ASKING", "+OK\r\n"), ("MULTI", "+OK\r\n")];
    let answer = known.iter().find(|(name, _)| asked.contains(name));
    answer.map_or("-ERR unknown command\r\n", |(_, answer)| answer).into()
}

/// The node that a slot moves to takes the entry, and is lost before it answers.
#[test]
fn what_was_sent_after_a_redirection_is_sent_once_at_most() {
    let [old, new] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [old_port, new_port] = [&old, &new].map(|node| node.local_addr().unwrap().port());
    let range = |first: u16, last: u16, port: u16| {
        format!(
            "*3\r\n:{first}\r\n:{last}\r\n*3\r\n$9\r\n127.0.0.1\r\n:{port}\r\n$5\r\n{port:05}\r\n"
        )
    };
    let slots = format!("*2\r\n{}{}", range(0, 16_382, old_port), range(16_383, 16_383, new_port));
    node(old, move |asked| {
        let ask = format!("-ASK 1 127.0.0.1:{new_port}\r\n");
        Some(if asked.contains("CLUSTER") {
            slots.clone().into_bytes()
        } else if asked.contains("MULTI") {
            let abort = "-EXECABORT Transaction discarded because of previous errors.\r\n";
            format!("+OK\r\n{ask}{ask}{abort}").into_bytes()
        } else if asked.contains("XADD") {
            ask.into_bytes()
        } else {
            common(asked)
        })
    });
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = taken.clone();
    node(new, move |asked| {
        let entries = asked.matches("XADD").count();
        counted.fetch_add(entries, Ordering::Relaxed);
        (entries == 0).then(|| common(asked))
    });
    let url = format!("redis-cluster://127.0.0.1:{old_port}");
    let gateway = Setup::with_url(&url).routes(&route("")).start();
    for (headers, body, entries) in [(&[][..], "x", 1), (&[NDJSON], "x\ny", 2)] {
        taken.store(0, Ordering::Relaxed);
        let answer = post(&gateway, "/events/a", headers, body);
        assert_eq!(answer.status, 504, "{answer:?}");
        // It may be lost in the midst of several.
        let taken = taken.load(Ordering::Relaxed);
        assert!((1..=entries).contains(&taken), "sent once, not {taken} times: {answer:?}");
    }
}
