//! A real nginx in front of a gateway; it can be pointed at another one.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::{Folder, eventually, signal, within};

/// A running nginx with one worker, stopped on drop.
pub struct Nginx {
    folder: Folder,
    process: Child,
}

impl Nginx {
    /// Starts it in front of `upstream`, a `host:port`.
    pub fn start(upstream: &str) -> Self {
        let folder = Folder::new();
        configure(&folder, upstream);
        let process = command(&folder).stdin(Stdio::null()).spawn().expect("nginx must be there");
        let nginx = Self { folder, process };
        eventually("nginx listens", || {
            std::os::unix::net::UnixStream::connect(nginx.socket()).is_ok()
        });
        nginx
    }

    /// Where its clients connect.
    pub fn socket(&self) -> PathBuf {
        self.folder.0.join("nginx.sock")
    }

    /// Rewrites the upstream and reloads, as a deployment does.
    pub fn point_at(&self, upstream: &str) {
        configure(&self.folder, upstream);
        let status = command(&self.folder).args(["-s", "reload"]).status().unwrap();
        assert!(status.success());
    }

    /// Its error log.
    pub fn errors(&self) -> String {
        std::fs::read_to_string(self.folder.0.join("error.log")).unwrap_or_default()
    }

    /// The status of each response so far, as in `200`; those under way are not there yet.
    pub fn statuses(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.folder.0.join("access.log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master has to end its workers, so it cannot be killed outright.
        signal(&self.process, "TERM");
        if std::thread::panicking() {
            eprintln!("--- nginx' errors ---\n{}", self.errors());
            let _ = self.process.wait();
            return;
        }
        within(super::DEADLINE, "nginx ends", || self.process.try_wait().unwrap().is_some());
    }
}

fn command(folder: &Folder) -> Command {
    let mut command = Command::new("nginx");
    command.arg("-p").arg(&folder.0).arg("-c").arg(folder.0.join("nginx.conf"));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn configure(folder: &Folder, upstream: &str) {
    let here = folder.0.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("    {name}_temp_path {here}/{name};\n"))
        .concat();
    let text = format!(
        "daemon off;
worker_processes 1;
pid {here}/nginx.pid;
error_log {here}/error.log notice;
events {{ worker_connections 8192; }}
http {{
    log_format status '$status';
    access_log {here}/access.log status;
{temporary}    upstream gateway {{ server {upstream}; }}
    server {{
        listen unix:{here}/nginx.sock backlog=4096;
        location / {{
            proxy_pass http://gateway;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_set_header Host x;
            proxy_buffering off;
            proxy_read_timeout 75s;
            proxy_next_upstream off;
        }}
    }}
}}
"
    );
    std::fs::write(folder.0.join("nginx.conf"), text).unwrap();
}
