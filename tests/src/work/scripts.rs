//! What interpreters run: tests in Python, workers in Node.js, a pipeline of a shell.

use anyhow::ensure;

use super::job::{self, Job};
use crate::harness::{Outcome, Scenario};
use crate::scenarios;

pub const ALL: &[Scenario] = scenarios![Work:
    python_tests_run_with_processes_of_their_own,
    python_computes_under_the_policy_of_its_own,
    a_program_of_node_runs_with_worker_threads,
    a_shell_pipeline_runs_with_temporary_files,
];

fn python_tests_run_with_processes_of_their_own() -> Outcome {
    let test = "\
import multiprocessing, subprocess, sys, threading, unittest

def square(x):
    return x * x

class Works(unittest.TestCase):
    def test_processes(self):
        with multiprocessing.get_context('spawn').Pool(2) as pool:
            self.assertEqual(pool.map(square, [1, 2, 3]), [1, 4, 9])

    def test_queue(self):
        queue = multiprocessing.Queue()
        process = multiprocessing.Process(target=queue.put, args=('text',))
        process.start()
        self.assertEqual(queue.get(timeout=60), 'text')
        process.join()

    def test_children_and_threads(self):
        self.assertEqual(subprocess.check_output(['sort'], input=b'b\\na\\n'), b'a\\nb\\n')
        child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)
        child.terminate()
        self.assertEqual(child.wait(), -15)
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()
";
    Job::new("coding-agent", &["python3"])?.file("test_works.py", test)?.run("python3 -m unittest -q test_works")?;
    ensure!(job::path("__pycache__").is_dir(), "the compiled test is not there");
    Ok(())
}

fn python_computes_under_the_policy_of_its_own() -> Outcome {
    let script = "\
import csv, ctypes, decimal, json, pathlib, sqlite3, threading, zoneinfo
rows = list(csv.DictReader(open('data.csv')))
base = sqlite3.connect('data.db')
base.execute('create table t (n integer)')
base.executemany('insert into t values (?)', [(row['n'],) for row in rows])
base.commit()
total, = base.execute('select sum(n) from t').fetchone()
pathlib.Path('out.json').write_text(json.dumps({'sum': total}))
";
    Job::new("python-interpreter", &["python3"])?
        .file("data.csv", "n\n40\n2\n")?
        .file("compute.py", script)?
        .execute(&["/usr/bin/python3", "compute.py"])?;
    ensure!(std::fs::read_to_string(job::path("out.json"))? == "{\"sum\": 42}", "the result is not there");
    Ok(())
}

fn a_program_of_node_runs_with_worker_threads() -> Outcome {
    let script = "\
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
if (isMainThread) {
  let sum = 0, left = 3;
  for (const n of [1, 2, 3]) {
    const worker = new Worker(__filename, { workerData: n });
    worker.on('message', (m) => { sum += m; });
    worker.on('exit', () => { left -= 1; if (left === 0) { require('fs').writeFileSync('sum', `${sum}`); } });
  }
} else {
  parentPort.postMessage(workerData * workerData);
}
";
    Job::new("coding-agent", &["node"])?.file("workers.js", script)?.run("node workers.js")?;
    ensure!(std::fs::read_to_string(job::path("sum"))? == "14", "the result is not there");
    Ok(())
}

fn a_shell_pipeline_runs_with_temporary_files() -> Outcome {
    let said = Job::new("coding-agent", &["bash", "awk", "tar"])?.run(
        "d=$(mktemp -d) && seq 1 100 >numbers
        sort -rn numbers | tee \"$d/sorted\" | head -2 | xargs -n 1 echo got
        find \"$d\" . -type f -print0 | xargs -0 wc -l | tail -1 >total
        tar -czf files.tar.gz -C \"$d\" . && tar -tzf files.tar.gz >/dev/null
        cp -a numbers copy && chmod 600 copy && touch -d yesterday copy && ln -s copy link && ln copy hard && mv hard moved
        sed -i s/100/200/ numbers && ! diff -q numbers copy >/dev/null && awk '{ s += $1 } END { print s }' numbers
        bash -c 'sort -n < <(cat link) | sed -n 1p'
        (sleep 100 & kill $!) && id -un && uname -s && date +%Y >/dev/null && df . >/dev/null && rm -r \"$d\" moved",
    )?;
    ensure!(said == "got 100\ngot 99\n5150\n1\nroot\nLinux\n", "it printed {said:?}");
    Ok(())
}
