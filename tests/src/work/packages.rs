//! Packages of Python and Node.js from a local directory, and the list of the distribution's own.

use anyhow::ensure;

use super::job::{self, Job};
use crate::harness::{Outcome, Scenario};
use crate::scenarios;

pub const ALL: &[Scenario] = scenarios![Work:
    a_python_package_is_installed_into_a_virtual_environment,
    a_package_of_node_is_installed_from_a_directory,
    installed_packages_are_listed,
];

fn a_python_package_is_installed_into_a_virtual_environment() -> Outcome {
    let setup = "from setuptools import setup\nsetup(name='tiny', version='1', packages=['tiny'])\n";
    let job = Job::new("coding-agent", &["python3", "pip3"])?
        .file("package/setup.py", setup)?
        .file("package/tiny/__init__.py", "answer = 42\n")?
        .environment("XDG_CACHE_HOME", "/tmp/work-cache")
        // The machine's own configuration may name an index with a token in it, and is denied; it is not needed.
        .environment("PIP_CONFIG_FILE", "/dev/null");
    let said =
        job.denied("network", "::1", "no_rule", "pip binds ::1 to learn whether IPv6 works, and goes on without").run(
            // Debian's pip and setuptools, so that nothing is fetched and nothing unpacked first.
            "python3 -m venv --without-pip --system-site-packages venv
            python3 -m pip --python venv install -q --no-index --no-deps --no-build-isolation ./package
            venv/bin/python -c 'import tiny; print(tiny.answer, tiny.__file__)'",
        )?;
    ensure!(said.starts_with("42 /workspace/venv/lib/python3"), "it printed {said:?}");
    Ok(())
}

fn a_package_of_node_is_installed_from_a_directory() -> Outcome {
    let said = Job::new("coding-agent", &["node", "npm"])?
        .file("answer/package.json", r#"{"name": "answer", "version": "1.0.0"}"#)?
        .file("answer/index.js", "module.exports = 42;\n")?
        .file("app/package.json", r#"{"name": "app", "version": "1.0.0"}"#)?
        .environment("npm_config_cache", "/tmp/work-npm")
        .environment("npm_config_update_notifier", "false")
        // The machine's own configuration may hold a token, and is denied; it is not needed.
        .environment("npm_config_globalconfig", "/dev/null")
        .run(
            "cd app && npm install --silent --offline --no-audit --no-fund ../answer && node -p 'require(\"answer\")'",
        )?;
    ensure!(said.ends_with("42\n"), "it printed {said:?}");
    let listed = job::outside("grep -c answer app/package.json && test -e app/node_modules/answer/index.js")?;
    ensure!(listed == "1\n", "the package is not in package.json: {listed:?}");
    Ok(())
}

fn installed_packages_are_listed() -> Outcome {
    let said = Job::new("coding-agent", &["apt", "dpkg-query"])?
        .denied("file", "anon:deleted", "no_rule", "apt opens a file again that it has removed, and goes on without")
        .run("apt list --installed 2>/dev/null | grep -c '^bash/' && dpkg-query -W -f '${Status}\\n' bash")?;
    ensure!(said == "1\ninstall ok installed\n", "it printed {said:?}");
    Ok(())
}
