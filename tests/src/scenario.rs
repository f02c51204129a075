//! The scenarios, by hook or topic. The name of a function is the sentence that it proves.

mod aliases;
mod applied;
mod attributes;
mod audit_log;
mod bindings;
mod capable;
mod cgroups;
mod endurance;
mod exec;
mod expiry;
mod file_open;
mod guard;
mod held;
mod images;
mod indirect;
mod inherited;
mod inode;
mod ipc;
mod lack_of_memory;
mod leaving;
mod memory;
mod misses;
mod modes;
mod monitor;
mod mounts;
mod names;
mod no_lsm;
mod node;
mod overlay;
mod policy_names;
mod powers;
mod property;
mod races;
mod readers;
mod record_file;
mod reload;
mod resources;
mod rights;
mod ring;
mod room;
mod run;
mod sessions;
mod setuid;
mod shipped;
mod soak;
mod socket_bind;
mod socket_connect;
mod socket_sendmsg;
mod sockets;
mod starting;
mod survival;
mod syscalls;
mod tasks;
mod terminal;
mod uninstall;
mod unix;
mod upgrade;

use crate::harness::Scenario;

/// All scenarios.
pub const ALL: &[&[Scenario]] = &[
    file_open::ALL,
    exec::ALL,
    endurance::ALL,
    endurance::QUICK,
    endurance::LOADING,
    soak::ALONE,
    memory::ALL,
    names::ALL,
    attributes::ALL,
    rights::ALL,
    modes::ALL,
    aliases::ALL,
    overlay::ALL,
    held::ALL,
    inherited::ALL,
    inode::ALL,
    indirect::ALL,
    sockets::ALL,
    socket_connect::ALL,
    socket_sendmsg::ALL,
    socket_bind::ALL,
    unix::ALL,
    tasks::ALL,
    capable::ALL,
    powers::ALL,
    mounts::ALL,
    sessions::ALL,
    setuid::ALL,
    resources::ALL,
    ipc::ALL,
    ring::ALL,
    leaving::ALL,
    cgroups::ALL,
    bindings::ALL,
    monitor::ALL,
    shipped::ALL,
    node::ALL,
    survival::ALL,
    uninstall::ALL,
    readers::ALL,
    starting::ALL,
    reload::ALL,
    applied::ALL,
    images::ALL,
    expiry::ALL,
    misses::ALL,
    audit_log::ALL,
    run::ALL,
    run::ALONE,
    guard::ALONE,
    record_file::ALL,
    record_file::ALONE,
    policy_names::ALL,
    policy_names::ALONE,
    lack_of_memory::ALL,
    lack_of_memory::ALONE,
    terminal::ALL,
    terminal::ALONE,
    syscalls::ALL,
    syscalls::ALONE,
    misses::ALONE,
    room::ALONE,
    property::ALL,
    races::ALL,
    upgrade::ALL,
    no_lsm::ALL,
];
