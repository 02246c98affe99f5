//! A real nginx with the configuration that is shipped, in front of a gateway; it can be pointed at another.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::proxies::{advised, changed, without};
use super::{Folder, eventually, signal, within};

pub const SHIPPED: &str = include_str!("../../../deploy/nginx/ssegate.conf");

/// A running nginx with one worker and without TLS, stopped on drop.
pub struct Nginx {
    folder: Folder,
    process: Child,
}

impl Nginx {
    /// Starts it in front of `upstream`, a `host:port`.
    pub fn start(upstream: &str) -> Self {
        let folder = Folder::new();
        configure(&folder, upstream);
        let process = command(&folder.0).stdin(Stdio::null()).spawn().expect("nginx must be there");
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
        let status = command(&self.folder.0).args(["-s", "reload"]).status().unwrap();
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

fn configure(folder: &Folder, upstream: &str) {
    let socket = format!("listen unix:{}/nginx.sock backlog=4096", folder.0.display());
    let text = changed(SHIPPED, &[("listen 443 ssl http2", &socket)]);
    let text = without(&without(&text, "ssl_certificate "), "ssl_certificate_key ");
    write(&folder.0, &text, upstream);
}

pub fn command(folder: &Path) -> Command {
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf"));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Writes the whole configuration around a shipped file, with this upstream: `host:port` or `unix:path`.
pub fn write(folder: &Path, shipped: &str, upstream: &str) {
    let here = folder.display();
    let main: String = advised(shipped).map(|line| format!("{line}\n")).collect();
    let (used, other) = match upstream.starts_with("unix:") {
        false => ("127.0.0.1:8080", "unix:/run/ssegate/http.sock"),
        true => ("unix:/run/ssegate/http.sock", "127.0.0.1:8080"),
    };
    let shipped = without(shipped, &format!("server {other} "));
    let shipped = shipped.replace("#server unix:", "server unix:");
    let shipped =
        changed(&shipped, &[(&format!("server {used} "), &format!("server {upstream} "))]);
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("    {name}_temp_path {here}/{name};\n"))
        .concat();
    let text = format!(
        "daemon off;
worker_processes 1;
pid {here}/nginx.pid;
error_log {here}/error.log notice;
{main}http {{
    log_format status '$status';
    access_log {here}/access.log status;
    gzip on;
    gzip_types *;
    gzip_proxied any;
    gzip_min_length 0;
{temporary}{shipped}}}
"
    );
    std::fs::write(folder.join("nginx.conf"), text).unwrap();
}
