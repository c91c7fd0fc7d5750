//! For tests: an HTTP server with canned replies, and the real service's template.
//!
//! Not the service with its bugs: only what it answers when nothing is stored.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use super::{Instance, Mode, Payload};

/// What the server does with one request.
pub(crate) enum Reply {
    /// These bytes, then close.
    Raw(Vec<u8>),
    /// A config made from the payload as the real service does without stored services.
    Config,
}

/// A server on a free port; it answers one request per reply and ends.
pub(crate) struct Server {
    /// Its URL up to the stage.
    pub(crate) url: String,
    /// Head and body of every request.
    pub(crate) requests: Receiver<(String, String)>,
}

/// A connection's both directions.
pub(crate) trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// A JSON response.
pub(crate) fn json(status: &str, body: &str) -> Reply {
    Reply::Raw(json_bytes(status, body))
}

fn json_bytes(status: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A plain server.
pub(crate) fn serve(replies: Vec<Reply>) -> Server {
    serve_over("http", replies, |stream| Box::new(stream))
}

/// A server over what `open` makes of each connection.
pub(crate) fn serve_over(
    scheme: &str,
    replies: Vec<Reply>,
    open: impl Fn(TcpStream) -> Box<dyn Stream> + Send + 'static,
) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (sender, requests) = channel();
    thread::spawn(move || {
        let mut replies = replies.into_iter();
        let mut reply = replies.next();
        while let Some(current) = reply.take() {
            let Ok((stream, _)) = listener.accept() else {
                return;
            };
            let mut reader = BufReader::new(open(stream));
            let Some((head, body)) = request(&mut reader) else {
                // A handshake that failed is no request.
                reply = Some(current);
                continue;
            };
            let bytes = match current {
                Reply::Raw(bytes) => bytes,
                Reply::Config => {
                    let payload = serde_json::from_slice(&body).expect("a payload");
                    let text = serde_json::to_string(&real_template(&payload)).expect("a string");
                    json_bytes("200 OK", &text)
                }
            };
            let _ = sender.send((head, String::from_utf8_lossy(&body).into_owned()));
            let _ = reader.get_mut().write_all(&bytes);
            let _ = reader.get_mut().flush();
            reply = replies.next();
        }
    });
    Server {
        url: format!("{scheme}://127.0.0.1:{}/api", address.port()),
        requests,
    }
}

fn request(reader: &mut BufReader<Box<dyn Stream>>) -> Option<(String, Vec<u8>)> {
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        head += &line;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// The real service's template, its entities, its missing newline and its cookies.
pub(crate) fn real_template(payload: &Payload) -> String {
    let escape = |text: &str| {
        text.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
    };
    let mut text = "global\n    log 127.0.0.1   local0\n    log 127.0.0.1   local1 notice\n    maxconn 4096\n    user haproxy\n    group haproxy\n    daemon\n\ndefaults\n    log global\n    mode http\n    option httplog\n    option dontlognull\n    option forwardfor\n    option http-server-close\n    timeout connect 5000\n    timeout client 50000\n    timeout server 50000\n\n# Define frontends\n\nfrontend http\n    bind :80\n    ".to_owned();
    for candidate in &payload.candidates {
        let name = &candidate.service_name;
        let rule = match candidate.config_mode {
            Mode::Host => format!("hdr(host) -i {}", escape(&candidate.predicate)),
            Mode::Path => format!("url_beg /{}", escape(&candidate.predicate)),
        };
        text += &format!("\n    acl {name} {rule}\n    use_backend {name} if {name}\n    ");
    }
    text += "\n\n# Define backends\n\n";
    for candidate in &payload.candidates {
        let name = &candidate.service_name;
        text += &format!(
            "backend {name}\n    mode http\n    balance roundrobin\n    option forwardfor\n"
        );
        let cookie = candidate.cookie.as_deref();
        if let Some(cookie) = cookie {
            text += &format!("    cookie {cookie} prefix nocache\n");
        }
        for Instance { id, ip } in &candidate.containers {
            let cookie = cookie.map_or_else(String::new, |cookie| format!("cookie {cookie}"));
            text += &format!(
                "    \n    server {id} {ip}:{} check {cookie}\n    ",
                candidate.port
            );
        }
        text += "\n";
    }
    text.trim_end_matches('\n').to_owned()
}
