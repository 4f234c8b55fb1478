//! What `deploy/kubernetes` holds: the manifests are held against the schemas of the API server, of its oldest and of
//! its newest release that are known here, and the exporter has to work with the rights that they give it.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{
    command::{output, root},
    deploy::{
        json::at,
        programs::{Programs, Running, folder},
    },
};

/// Releases of Kubernetes.
const RELEASES: [&str; 2] = ["1.28", "1.37"];

/// Prints the objects of a manifest as JSON, one a line.
const OBJECTS: &str = "import json, sys, yaml\nfor it in yaml.safe_load_all(open(sys.argv[1])): print(json.dumps(it))";

/// Checks everything; returns a remark.
pub(super) fn check(programs: &Programs, python: &Path) -> Result<String> {
    let manifest = root().join("deploy/kubernetes/fork-trace.yaml");
    for release in RELEASES {
        validate(python, &manifest, release)?;
    }
    // A check that finds nothing wrong with a mistake would say nothing.
    let text = fs::read_to_string(&manifest).context("read the manifest")?;
    for (right, wrong) in
        [("hostPID: true", "hostPid: true"), ("containerPort: 9464", "containerPort: metrics")]
    {
        ensure!(text.contains(right), "the manifest has no {right}");
        let copy = folder("kubernetes")?.join("wrong.yaml");
        fs::write(&copy, text.replace(right, wrong)).context("write a wrong manifest")?;
        ensure!(validate(python, &copy, RELEASES[0]).is_err(), "{wrong} is not found to be wrong");
    }
    let lines = output(Command::new(python).args(["-c", OBJECTS]).arg(&manifest))?;
    let objects: Vec<Value> = lines
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .context("read objects")?;
    let daemon_set = objects.iter().find(|object| at(object, "/kind") == "DaemonSet");
    let container =
        at(daemon_set.context("find the DaemonSet")?, "/spec/template/spec/containers/0");
    works(programs, container)?;
    Ok(format!(
        "Kubernetes {}: {} objects are right, and the exporter works with their capabilities",
        RELEASES.join(" and "),
        objects.len()
    ))
}

fn validate(python: &Path, manifest: &Path, release: &str) -> Result<()> {
    let validator = python.with_file_name("kubernetes-validate");
    let mut command = Command::new(validator);
    command.args(["--strict", "--kubernetes-version", release]).arg(manifest);
    output(&mut command).map(drop)
}

/// Starts the exporter with the capabilities of the container and no others, and asks as the probes do.
fn works(programs: &Programs, container: &Value) -> Result<()> {
    let given = at(container, "/securityContext/capabilities/add").as_array();
    let given = given.context("find capabilities")?.iter().filter_map(Value::as_str);
    let given: BTreeSet<String> = given.map(str::to_lowercase).collect();
    let bounding: String = given.iter().map(|name| format!(",+{name}")).collect();
    let args = at(container, "/args").as_array().context("find arguments")?;
    let args = args.iter().filter_map(Value::as_str);
    let mut child = Command::new("setpriv")
        .args(["--no-new-privs", "--inh-caps=-all", &format!("--bounding-set=-all{bounding}")])
        .arg(&programs.fork_trace)
        .args(args.map(|arg| arg.replace("$(POD_IP):9464", "127.0.0.1:0")))
        .stderr(Stdio::piped())
        .spawn()
        .context("start setpriv")?;
    let stderr = child.stderr.take().context("take its standard error")?;
    let export = Running(child);
    let mut line = String::new();
    BufReader::new(stderr).read_line(&mut line).context("read what it says")?;
    let address = line.trim().trim_end_matches("/metrics").rsplit('/').next().unwrap_or_default();
    let address: SocketAddr = address.parse().with_context(|| format!("it says {line:?}"))?;
    for probe in ["startupProbe", "livenessProbe"] {
        let path = at(container, &format!("/{probe}/httpGet/path"));
        let path = path.as_str().with_context(|| format!("find {probe}"))?;
        let mut stream = TcpStream::connect(address).context("connect to the exporter")?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").context("ask the exporter")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("read its answer")?;
        let status = answer.lines().next().unwrap_or_default();
        if !status.contains(" 200 ") {
            bail!("{probe}: {status}");
        }
    }
    // It gives up those that it does not need any more, and has no others.
    let status = fs::read_to_string(format!("/proc/{}/status", export.0.id()))
        .context("read the exporter's status")?;
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let bounding = u64::from_str_radix(bounding.unwrap_or_default().trim(), 16);
    let bounding = bounding.context("read its bounding set")?.count_ones();
    ensure!(bounding as usize == given.len(), "it may have {bounding} capabilities");
    Ok(())
}
