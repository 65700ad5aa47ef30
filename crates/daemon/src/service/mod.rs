//! The service: `trait Api` in process. What the socket offers and what a test can call are the same thing.

mod abilities;
mod commands;
mod connections;
mod disk;
mod events;
mod files;
mod hosts;
mod idle;
mod machines;
mod many;
mod operations;
pub(crate) mod packages;
mod quota;
mod raw;
mod ready;
mod resolve;
mod sessions;
mod usage;

use crate::{context::Context, settings::Quota};
use async_trait::async_trait;
use std::{sync::Arc, time::Duration};
use tokio::sync::{Notify, Semaphore};
use vmoon_api::{
    Api, Attachment, EventStream, MIN_PROTOCOL, PROTOCOL,
    files::{FileEntry, Transfer},
    requests::*,
    views::*,
};
use vmoon_core::{
    Error, Result,
    ability::{Address, DisplayOffer, Snapshot},
    connection::Connection,
    device::{DeviceChange, NewDevice},
    driver::Driver,
    event::Event,
    hosts::Place,
    machine::{Request, State},
    package::{CacheInfo, EnvironmentInfo, FoundRock, HistoryEntry, PackagePlan, ProfileInfo, RockInfo, ServerInfo},
    raw::{RawAnswer, RawTask},
};

/// The longest a request may wait before it is answered with what is known, milliseconds.
const LONGEST_WAIT: u64 = 60_000;

pub(crate) use connections::DEFAULT;
pub(crate) use sessions::no_channel;

/// One connection and its driver.
#[derive(Clone)]
pub struct Connected {
    /// The connection.
    pub connection: Connection,
    /// Its driver.
    pub driver: Arc<dyn Driver>,
}

/// The daemon's service.
#[derive(Clone)]
pub struct Service {
    context: Arc<Context>,
    started_ms: u64,
    stop: Arc<Notify>,
    ledger: Arc<quota::Ledger>,
    transfers: Arc<Semaphore>,
    workshop: Arc<packages::Workshop>,
}

impl Service {
    /// The service over these parts. `stop` is told when a client asks the daemon to end. Machines that nothing uses are
    /// watched from now on.
    pub(crate) fn new(context: Arc<Context>, stop: Arc<Notify>, quota: Quota, workshop: Arc<packages::Workshop>) -> Self {
        drop(tokio::spawn(idle::watch(context.clone())));
        Self {
            context,
            started_ms: vmoon_sys::clock::now_ms(),
            stop,
            ledger: quota::Ledger::new(quota),
            transfers: files::places(),
            workshop,
        }
    }
}

/// How long a request may wait.
fn patience(asked: Option<u64>, default: u64) -> Duration {
    Duration::from_millis(asked.unwrap_or(default).min(LONGEST_WAIT))
}

#[async_trait]
impl Api for Service {
    async fn hello(&self, _: Empty) -> Result<Hello> {
        let machines = self.context.machines();
        Ok(Hello {
            version: env!("CARGO_PKG_VERSION").into(),
            protocol: PROTOCOL,
            min_protocol: MIN_PROTOCOL,
            pid: std::process::id(),
            started_ms: self.started_ms,
            state_dir: self.context.state.to_string_lossy().into_owned(),
            kinds: self.kinds(),
            machines: machines.len() as u64,
            running: machines.iter().filter(|m| m.view().state == State::Running).count() as u64,
            quota: self.ledger.view(&self.context),
        })
    }

    async fn doctor(&self, _: Empty) -> Result<DoctorView> {
        let mut checks = vec![self.disk_check(), self.quota_check()];
        for entry in self.context.connections.all() {
            checks.extend(entry.driver.probe().await);
            checks.extend(self.orphans(&entry).await);
        }
        Ok(DoctorView { checks })
    }

    async fn repair(&self, request: Repair) -> Result<Vec<RepairView>> {
        let mut all = Vec::new();
        for entry in self.context.connections.all() {
            let connection = entry.connection().name.clone();
            match entry.driver.repair(request.dry_run).await {
                Ok(steps) if steps.is_empty() => {}
                Ok(steps) => all.push(RepairView { connection, steps, error: None }),
                Err(error) => all.push(RepairView { connection, steps: Vec::new(), error: Some(error.to_record()) }),
            }
        }
        Ok(all)
    }

    async fn stop_daemon(&self, _: Empty) -> Result<Nothing> {
        self.stop.notify_one();
        Ok(Nothing {})
    }

    async fn list_connections(&self, _: Empty) -> Result<Vec<ConnectionView>> {
        Ok(self.connections())
    }

    async fn add_connection(&self, request: AddConnection) -> Result<ConnectionView> {
        let this = self.clone();
        // Whether or not the client is still there: what is stored has a task.
        let work = tokio::spawn(async move { this.connect(request).await });
        work.await.map_err(|error| Error::internal("adding a connection panicked").source(error))?
    }

    async fn show_connection(&self, request: ConnectionRef) -> Result<ConnectionDetails> {
        self.connection_details(&request.connection).await
    }

    async fn test_connection(&self, request: ConnectionRef) -> Result<TestView> {
        self.try_connection(&request.connection).await
    }

    async fn login_connection(&self, request: LoginConnection) -> Result<ConnectionView> {
        let this = self.clone();
        let work = tokio::spawn(async move { this.login(request).await });
        work.await.map_err(|error| Error::internal("logging in panicked").source(error))?
    }

    async fn remove_connection(&self, request: RemoveConnection) -> Result<ConnectionView> {
        let this = self.clone();
        let work = tokio::spawn(async move { this.disconnect(request).await });
        work.await.map_err(|error| Error::internal("removing a connection panicked").source(error))?
    }

    async fn default_connection(&self, request: ConnectionRef) -> Result<ConnectionView> {
        self.prefer(&request.connection).await
    }

    async fn list_machines(&self, _: Empty) -> Result<Vec<MachineView>> {
        Ok(self.all_machines())
    }

    async fn plan_machine(&self, request: CreateMachine) -> Result<PlanView> {
        self.plan(request).await
    }

    async fn usage(&self, _: Empty) -> Result<UsageView> {
        self.all_usage().await
    }

    async fn stat_file(&self, request: FileRef) -> Result<FileEntry> {
        self.file(request).await
    }

    async fn list_files(&self, request: FileRef) -> Result<FilesView> {
        self.directory(request).await
    }

    async fn make_directory(&self, request: MakeDirectory) -> Result<FileEntry> {
        self.new_directory(request).await
    }

    async fn transfer_file(&self, request: TransferFile) -> Result<Box<dyn Transfer>> {
        self.transfer(request).await
    }

    async fn eval_many(&self, request: EvalMany) -> Result<Vec<ManyView>> {
        self.evaluate_many(request).await
    }

    async fn create_machine(&self, request: CreateMachine) -> Result<Answered> {
        self.create(request).await
    }

    async fn clone_machine(&self, request: CloneMachine) -> Result<Answered> {
        self.copy(request).await
    }

    async fn show_machine(&self, request: MachineRef) -> Result<MachineView> {
        self.show(&request.machine).await
    }

    async fn request_machine(&self, request: MachineRequest) -> Result<Answered> {
        let machine = self.machine(&request.machine)?;
        self.confirmed(&machine, &request)?;
        self.decide_disks(&machine, &request).await?;
        let starts = matches!(request.request, Request::Start | Request::Restart | Request::Resume);
        // Held until the machine's own state shows that it runs.
        let _place = if starts { self.ledger.start(&self.context, &machine.view())? } else { None };
        let answer = machine.request(request.request, request.deadline_ms.map(Duration::from_millis)).await?;
        Ok(Answered { answer, machine: machine.view().as_ref().clone(), warnings: Vec::new() })
    }

    async fn plan_request(&self, request: MachineRequest) -> Result<PlanView> {
        let machine = self.machine(&request.machine)?;
        let mut plan = machine.plan(request.request).await?;
        plan.steps.extend(self.fate_of_disks(&machine, &request).await?);
        Ok(plan)
    }

    async fn list_snapshots(&self, request: MachineRef) -> Result<Vec<Snapshot>> {
        self.snapshots_of(&request.machine).await
    }

    async fn create_snapshot(&self, request: CreateSnapshot) -> Result<WorkView> {
        self.snapshot(request).await
    }

    async fn revert_snapshot(&self, request: SnapshotRef) -> Result<WorkView> {
        self.revert(request).await
    }

    async fn delete_snapshot(&self, request: SnapshotRef) -> Result<WorkView> {
        self.drop_snapshot(request).await
    }

    async fn tune_machine(&self, request: TuneMachine) -> Result<WorkView> {
        self.tune(request).await
    }

    async fn rename_machine(&self, request: RenameMachine) -> Result<WorkView> {
        self.rename(request).await
    }

    async fn list_devices(&self, request: MachineRef) -> Result<DevicesView> {
        self.devices_of(&request.machine).await
    }

    async fn add_device(&self, request: AddDevice) -> Result<WorkView> {
        let change = DeviceChange::Add(NewDevice { kind: request.kind, settings: request.settings });
        self.change_device(&request.machine, change, request.dry_run, request.deadline_ms).await
    }

    async fn remove_device(&self, request: RemoveDevice) -> Result<WorkView> {
        let change = DeviceChange::Remove { name: request.device, keep: request.keep };
        self.change_device(&request.machine, change, request.dry_run, request.deadline_ms).await
    }

    async fn reset_machine(&self, request: ResetMachine) -> Result<WorkView> {
        self.reset(request).await
    }

    async fn call_raw(&self, request: CallRaw) -> Result<RawAnswer> {
        self.raw_call(request).await
    }

    async fn follow_raw(&self, request: FollowRaw) -> Result<RawTask> {
        self.raw_task(request).await
    }

    async fn cancel_raw(&self, request: RawTaskRef) -> Result<Nothing> {
        self.raw_cancel(request).await.map(|()| Nothing {})
    }

    async fn list_places(&self, request: MachineRef) -> Result<Vec<Place>> {
        self.places(&request.machine).await
    }

    async fn migrate_machine(&self, request: MigrateMachine) -> Result<WorkView> {
        self.migrate(request).await
    }

    async fn exec(&self, request: Exec) -> Result<ExecView> {
        self.run_program(request).await
    }

    async fn list_addresses(&self, request: MachineRef) -> Result<Vec<Address>> {
        self.addresses_of(&request.machine).await
    }

    async fn wait_ready(&self, request: WaitReady) -> Result<ReadyView> {
        self.ready(request).await
    }

    async fn list_displays(&self, request: MachineRef) -> Result<Vec<DisplayOffer>> {
        self.displays(&request.machine).await
    }

    async fn screenshot(&self, request: MachineRef) -> Result<PictureView> {
        self.picture(&request.machine).await
    }

    async fn wait_machine(&self, request: WaitMachine) -> Result<MachineView> {
        self.wait(request).await
    }

    async fn list_operations(&self, request: ListOperations) -> Result<Vec<OperationView>> {
        self.operations(request.running.unwrap_or(false)).await
    }

    async fn show_operation(&self, request: OperationRef) -> Result<OperationView> {
        self.operation(&request.operation).await
    }

    async fn wait_operation(&self, request: WaitOperation) -> Result<OperationView> {
        self.wait_operation_end(&request.operation, patience(request.timeout_ms, 30_000)).await
    }

    async fn cancel_operation(&self, request: OperationRef) -> Result<OperationView> {
        self.cancel(&request.operation).await
    }

    async fn list_sessions(&self, request: ListSessions) -> Result<Vec<SessionView>> {
        self.sessions(request)
    }

    async fn open_session(&self, request: SessionRef) -> Result<SessionView> {
        Ok(self.usable_session(&request.session).await?.view())
    }

    async fn show_session(&self, request: SessionRef) -> Result<SessionView> {
        Ok(self.session(&request.session)?.view())
    }

    async fn detach_session(&self, request: SessionRef) -> Result<SessionView> {
        let shared = self.session(&request.session)?;
        shared.dismiss();
        Ok(shared.view())
    }

    async fn eval(&self, request: Eval) -> Result<CommandView> {
        self.evaluate(request).await
    }

    async fn input(&self, request: Input) -> Result<Nothing> {
        self.feed(request).await
    }

    async fn interrupt(&self, request: Interrupt) -> Result<Nothing> {
        self.interrupt_running(request).await
    }

    async fn complete(&self, request: AskCode) -> Result<NamesView> {
        self.names(request).await
    }

    async fn is_complete(&self, request: AskCode) -> Result<CompletenessView> {
        self.completeness(request).await
    }

    async fn read(&self, request: Read) -> Result<ReadView> {
        self.read_transcript(request).await
    }

    async fn show_command(&self, request: CommandRef) -> Result<CommandView> {
        self.command(request).await
    }

    async fn interrupt_command(&self, request: CommandRef) -> Result<CommandView> {
        self.interrupt_one(request).await
    }

    async fn list_environments(&self, _: Empty) -> Result<Vec<EnvironmentInfo>> {
        self.environments().await
    }

    async fn create_environment(&self, request: CreateEnvironment) -> Result<EnvironmentInfo> {
        self.make_environment(request).await
    }

    async fn show_environment(&self, request: EnvironmentRef) -> Result<EnvironmentInfo> {
        self.environment(request).await
    }

    async fn remove_environment(&self, request: EnvironmentRef) -> Result<Nothing> {
        self.drop_environment(request).await
    }

    async fn use_environment(&self, request: EnvironmentRef) -> Result<EnvironmentInfo> {
        self.choose_environment(request).await
    }

    async fn plan_packages(&self, request: ChangePackages) -> Result<PackagePlan> {
        self.plan_change(request).await
    }

    async fn change_packages(&self, request: ChangePackages) -> Result<BegunView> {
        self.begin_change(request).await
    }

    async fn plan_apply(&self, request: ApplyEnvironment) -> Result<AppliedView> {
        self.would_apply(request).await
    }

    async fn apply_environment(&self, request: ApplyEnvironment) -> Result<BegunView> {
        self.begin_apply(request).await
    }

    async fn list_packages(&self, request: ListPackages) -> Result<Vec<RockInfo>> {
        self.rocks(request).await
    }

    async fn read_lock(&self, request: EnvironmentRef) -> Result<LockView> {
        self.lock(request).await
    }

    async fn export_environment(&self, request: EnvironmentRef) -> Result<LockView> {
        self.export(request).await
    }

    async fn verify_environment(&self, request: EnvironmentRef) -> Result<VerifyView> {
        self.verify(request).await
    }

    async fn environment_history(&self, request: EnvironmentRef) -> Result<Vec<HistoryEntry>> {
        self.history(request).await
    }

    async fn search_packages(&self, request: SearchPackages) -> Result<Vec<FoundRock>> {
        self.search(request).await
    }

    async fn show_package(&self, request: PackageRef) -> Result<FoundRock> {
        self.package(request).await
    }

    async fn list_profiles(&self, _: Empty) -> Result<Vec<ProfileInfo>> {
        self.profiles().await
    }

    async fn list_servers(&self, request: ListServers) -> Result<Vec<ServerInfo>> {
        self.servers(request).await
    }

    async fn change_servers(&self, request: ChangeServers) -> Result<Vec<ServerInfo>> {
        self.server_change(request).await
    }

    async fn show_cache(&self, _: Empty) -> Result<CacheInfo> {
        self.cache(false).await
    }

    async fn clear_cache(&self, _: Empty) -> Result<CacheInfo> {
        self.cache(true).await
    }

    async fn list_events(&self, request: Events) -> Result<Vec<Event>> {
        self.events(request).await
    }

    async fn attach(&self, request: Attach) -> Result<Box<dyn Attachment>> {
        self.attach_to(request).await
    }

    async fn follow_events(&self, request: Events) -> Result<Box<dyn EventStream>> {
        self.follow(request).await
    }
}
