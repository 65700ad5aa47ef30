//! The endpoint table: the single declaration of the API.

use std::collections::BTreeMap;

/// An HTTP method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Changes something.
    Post,
}

impl Method {
    /// `GET` or `POST`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
        }
    }
}

/// One endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    /// Its name: the method of `trait Api`.
    pub name: &'static str,
    /// How.
    pub method: Method,
    /// The path; `{field}` is a field of the request.
    pub path: &'static str,
    /// The type of the request.
    pub request: &'static str,
    /// The type of the answer; for a WebSocket the subprotocol.
    pub response: &'static str,
    /// What it does.
    pub summary: &'static str,
    /// Whether it upgrades to a WebSocket.
    pub websocket: bool,
}

impl Endpoint {
    /// The parameters of `path` if it is this endpoint's, percent-decoded.
    pub fn matches(&self, path: &str) -> Option<BTreeMap<&'static str, String>> {
        let mut found = BTreeMap::new();
        let (mut ours, mut theirs) = (self.path.split('/'), path.split('/'));
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) => return Some(found),
                (Some(ours), Some(theirs)) => match ours.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
                    Some(name) => {
                        let value = percent_encoding::percent_decode_str(theirs).decode_utf8().ok()?;
                        found.insert(name, value.into_owned());
                    }
                    None if ours == theirs => {}
                    None => return None,
                },
                _ => return None,
            }
        }
    }
}

/// Declares the endpoints: the trait's methods, the client's, the dispatcher's and the table all come from one list.
#[macro_export]
macro_rules! with_endpoints {
    ($then:ident) => {
        $then! {
            hello(Empty) -> Hello: Get "/v1/hello" "Who answers, and which versions it speaks.";
            doctor(Empty) -> DoctorView: Get "/v1/doctor" "Checks the computer and every driver's requirements.";
            repair(Repair) -> Vec<RepairView>: Post "/v1/doctor/repair" "Makes what the checks found missing, where vmoon knows how.";
            stop_daemon(Empty) -> Nothing: Post "/v1/daemon/stop" "Ends the daemon; machines and sessions live on.";
            list_connections(Empty) -> Vec<ConnectionView>: Get "/v1/connections" "Lists connections.";
            add_connection(AddConnection) -> ConnectionView: Post "/v1/connections" "Tries a connection and keeps it.";
            show_connection(ConnectionRef) -> ConnectionDetails: Get "/v1/connections/{connection}" "Shows one connection, and what its hosts have to offer.";
            test_connection(ConnectionRef) -> TestView: Post "/v1/connections/{connection}/test" "Tries a connection that is kept.";
            login_connection(LoginConnection) -> ConnectionView: Post "/v1/connections/{connection}/login" "Gives a connection another secret or fingerprint.";
            remove_connection(RemoveConnection) -> ConnectionView: Post "/v1/connections/{connection}/remove" "Removes a connection with the records of its machines; touches nothing real.";
            default_connection(ConnectionRef) -> ConnectionView: Post "/v1/connections/{connection}/default" "Makes it the connection that is meant where none is named.";
            call_raw(CallRaw) -> RawAnswer: Post "/v1/connections/{connection}/calls" "Calls something of the hypervisor's own by its name.";
            follow_raw(FollowRaw) -> RawTask: Get "/v1/connections/{connection}/tasks/{task}" "Answers when a task of such a call is further, or has ended.";
            cancel_raw(RawTaskRef) -> Nothing: Post "/v1/connections/{connection}/tasks/{task}/cancel" "Asks a task of such a call to stop.";
            list_machines(Empty) -> Vec<MachineView>: Get "/v1/machines" "Lists machines, by connection and name.";
            usage(Empty) -> UsageView: Get "/v1/usage" "Says what every machine uses: processor, memory, commands.";
            plan_machine(CreateMachine) -> PlanView: Post "/v1/plan" "Says what creating the machine would do; touches nothing.";
            create_machine(CreateMachine) -> Answered: Post "/v1/machines" "Creates a machine.";
            clone_machine(CloneMachine) -> Answered: Post "/v1/machines/{machine}/clone" "Copies a running machine with its state; both go on.";
            show_machine(MachineRef) -> MachineView: Get "/v1/machines/{machine}" "Shows one machine, with facts and sessions.";
            request_machine(MachineRequest) -> Answered: Post "/v1/machines/{machine}/requests" "Asks a machine to start, stop, be deleted, ….";
            plan_request(MachineRequest) -> PlanView: Post "/v1/machines/{machine}/plan" "Says what that request would do; touches nothing.";
            wait_machine(WaitMachine) -> MachineView: Get "/v1/machines/{machine}/wait" "Answers when the machine is in a state, or has changed.";
            list_snapshots(MachineRef) -> Vec<Snapshot>: Get "/v1/machines/{machine}/snapshots" "Lists a machine's snapshots, parents first.";
            create_snapshot(CreateSnapshot) -> WorkView: Post "/v1/machines/{machine}/snapshots" "Makes a snapshot.";
            revert_snapshot(SnapshotRef) -> WorkView: Post "/v1/machines/{machine}/snapshots/{snapshot}/revert" "Returns to a snapshot; what the machine was since is lost.";
            delete_snapshot(SnapshotRef) -> WorkView: Post "/v1/machines/{machine}/snapshots/{snapshot}/delete" "Deletes a snapshot; its children stay.";
            tune_machine(TuneMachine) -> WorkView: Post "/v1/machines/{machine}/settings" "Changes settings of a machine that exists.";
            rename_machine(RenameMachine) -> WorkView: Post "/v1/machines/{machine}/rename" "Gives a machine another name.";
            list_devices(MachineRef) -> DevicesView: Get "/v1/machines/{machine}/devices" "Lists a machine's devices, and what can be added.";
            add_device(AddDevice) -> WorkView: Post "/v1/machines/{machine}/devices" "Adds a device, at once where the machine can.";
            remove_device(RemoveDevice) -> WorkView: Post "/v1/machines/{machine}/devices/{device}/remove" "Removes a device, and what was made for it.";
            reset_machine(ResetMachine) -> WorkView: Post "/v1/machines/{machine}/reset" "Presses the reset button; what was not written is lost.";
            list_places(MachineRef) -> Vec<Place>: Get "/v1/machines/{machine}/hosts" "Lists the hosts where a machine could run, and why not on the others.";
            migrate_machine(MigrateMachine) -> WorkView: Post "/v1/machines/{machine}/migrate" "Moves a running machine to another host.";
            exec(Exec) -> ExecView: Post "/v1/machines/{machine}/exec" "Runs a program in a machine and answers when it has ended.";
            list_addresses(MachineRef) -> Vec<Address>: Get "/v1/machines/{machine}/addresses" "Lists a machine's addresses, the most trustworthy first.";
            wait_ready(WaitReady) -> ReadyView: Get "/v1/machines/{machine}/ready" "Answers when a machine has an address, greets by SSH, or has a live session.";
            list_displays(MachineRef) -> Vec<DisplayOffer>: Get "/v1/machines/{machine}/displays" "Lists where a machine's screen can be seen.";
            screenshot(MachineRef) -> PictureView: Post "/v1/machines/{machine}/screenshot" "Takes a picture of a machine's screen.";
            stat_file(FileRef) -> FileEntry: Get "/v1/machines/{machine}/file" "Looks at one file of a machine; follows no link.";
            list_files(FileRef) -> FilesView: Get "/v1/machines/{machine}/files" "Lists a directory of a machine.";
            make_directory(MakeDirectory) -> FileEntry: Post "/v1/machines/{machine}/directories" "Makes a directory, or finds it.";
            list_operations(ListOperations) -> Vec<OperationView>: Get "/v1/operations" "Lists operations, newest first.";
            show_operation(OperationRef) -> OperationView: Get "/v1/operations/{operation}" "Shows one operation.";
            wait_operation(WaitOperation) -> OperationView: Get "/v1/operations/{operation}/wait" "Answers when the operation has ended.";
            cancel_operation(OperationRef) -> OperationView: Post "/v1/operations/{operation}/cancel" "Asks an operation to be cancelled; never kills.";
            list_sessions(ListSessions) -> Vec<SessionView>: Get "/v1/sessions" "Lists sessions.";
            open_session(SessionRef) -> SessionView: Post "/v1/sessions/{session}/open" "Opens a session, or finds it open.";
            show_session(SessionRef) -> SessionView: Get "/v1/sessions/{session}" "Shows one session.";
            detach_session(SessionRef) -> SessionView: Post "/v1/sessions/{session}/detach" "Detaches everybody; the session lives on.";
            eval(Eval) -> CommandView: Post "/v1/sessions/{session}/eval" "Evaluates a chunk and answers with its own result.";
            eval_many(EvalMany) -> Vec<ManyView>: Post "/v1/eval" "Evaluates one chunk in many sessions at once.";
            input(Input) -> Nothing: Post "/v1/sessions/{session}/input" "Answers a command that waits for input.";
            interrupt(Interrupt) -> Nothing: Post "/v1/sessions/{session}/interrupt" "Interrupts a command; the state of the machine is kept.";
            complete(AskCode) -> NamesView: Post "/v1/sessions/{session}/complete" "Completes an expression from the running machine.";
            is_complete(AskCode) -> CompletenessView: Post "/v1/sessions/{session}/is-complete" "Says whether a chunk is complete.";
            read(Read) -> ReadView: Get "/v1/sessions/{session}/read" "Reads the transcript from an offset.";
            show_command(CommandRef) -> CommandView: Get "/v1/commands/{command}" "Shows a command and what it has answered.";
            interrupt_command(CommandRef) -> CommandView: Post "/v1/commands/{command}/interrupt" "Interrupts one command.";
            list_environments(Empty) -> Vec<EnvironmentInfo>: Get "/v1/environments" "Lists environments of packages, by name.";
            create_environment(CreateEnvironment) -> EnvironmentInfo: Post "/v1/environments" "Makes an environment, empty.";
            show_environment(EnvironmentRef) -> EnvironmentInfo: Get "/v1/environments/{environment}" "Shows one environment, with its packages and generations.";
            remove_environment(EnvironmentRef) -> Nothing: Post "/v1/environments/{environment}/remove" "Removes an environment that no machine runs with.";
            use_environment(EnvironmentRef) -> EnvironmentInfo: Post "/v1/environments/{environment}/use" "Chooses the environment that is meant by @.";
            plan_packages(ChangePackages) -> PackagePlan: Post "/v1/environments/{environment}/plan" "Says what changing its packages would do; touches nothing.";
            change_packages(ChangePackages) -> BegunView: Post "/v1/environments/{environment}/changes" "Changes its packages: a new generation, or nothing.";
            plan_apply(ApplyEnvironment) -> AppliedView: Post "/v1/environments/{environment}/apply/plan" "Says what making a machine use it would do; touches nothing.";
            apply_environment(ApplyEnvironment) -> BegunView: Post "/v1/environments/{environment}/apply" "Makes a machine use an environment, also while it runs; the operation's result is an AppliedView.";
            list_packages(ListPackages) -> Vec<RockInfo>: Get "/v1/environments/{environment}/packages" "Lists its packages.";
            read_lock(EnvironmentRef) -> LockView: Get "/v1/environments/{environment}/lock" "Reads its lock.";
            export_environment(EnvironmentRef) -> LockView: Get "/v1/environments/{environment}/export" "Exports it: its lock and what it is for, from which it can be made again.";
            verify_environment(EnvironmentRef) -> VerifyView: Get "/v1/environments/{environment}/verify" "Compares its files with its lock.";
            environment_history(EnvironmentRef) -> Vec<HistoryEntry>: Get "/v1/environments/{environment}/history" "Says what was done with it, the newest first.";
            search_packages(SearchPackages) -> Vec<FoundRock>: Get "/v1/packages" "Looks for packages on its servers.";
            show_package(PackageRef) -> FoundRock: Get "/v1/packages/{package}" "Shows one package.";
            list_profiles(Empty) -> Vec<ProfileInfo>: Get "/v1/profiles" "Lists sets of packages with a name.";
            list_servers(ListServers) -> Vec<ServerInfo>: Get "/v1/servers" "Lists rocks servers, in the order they are asked.";
            change_servers(ChangeServers) -> Vec<ServerInfo>: Post "/v1/servers" "Changes a list of rocks servers.";
            show_cache(Empty) -> CacheInfo: Get "/v1/cache" "Says what the caches of downloads and builds hold.";
            clear_cache(Empty) -> CacheInfo: Post "/v1/cache/clear" "Empties them; answers what they held.";
            list_events(Events) -> Vec<Event>: Get "/v1/events" "Lists the events that are kept.";
        }
    };
}

macro_rules! table {
    ($($name:ident($request:ty) -> $response:ty: $method:ident $path:literal $summary:literal;)*) => {
        /// Every endpoint.
        pub const TABLE: &[Endpoint] = &[
            $(Endpoint {
                name: stringify!($name),
                method: Method::$method,
                path: $path,
                request: stringify!($request),
                response: stringify!($response),
                summary: $summary,
                websocket: false,
            },)*
            Endpoint {
                name: "attach",
                method: Method::Get,
                path: "/v1/sessions/{session}/stream",
                request: "Attach",
                response: crate::SESSION_PROTOCOL,
                summary: "Attaches to a session: its frames with their offsets, both ways.",
                websocket: true,
            },
            Endpoint {
                name: "transfer_file",
                method: Method::Get,
                path: "/v1/machines/{machine}/files/stream",
                request: "TransferFile",
                response: crate::FILES_PROTOCOL,
                summary: "Carries one file out of a machine or into it: binary messages are its bytes, in order.",
                websocket: true,
            },
            Endpoint {
                name: "follow_events",
                method: Method::Get,
                path: "/v1/events/stream",
                request: "Events",
                response: crate::EVENTS_PROTOCOL,
                summary: "Follows events, one JSON text message each.",
                websocket: true,
            },
        ];
    };
}

with_endpoints!(table);

/// Finds the endpoint of a request.
pub fn find(method: &str, path: &str) -> Option<(&'static Endpoint, BTreeMap<&'static str, String>)> {
    // Literal segments win over parameters because no parameter stands where another endpoint has a literal sibling, which
    // the test below holds.
    TABLE.iter().filter(|e| e.method.as_str() == method).find_map(|e| Some((e, e.matches(path)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_finds_its_own_endpoint() {
        for endpoint in TABLE {
            let path = endpoint.path.replace('{', "x").replace('}', "");
            let (found, _) = find(endpoint.method.as_str(), &path).unwrap();
            assert_eq!(found.name, endpoint.name);
        }
    }

    #[test]
    fn parameters_are_decoded_and_hostile_paths_find_nothing() {
        let (endpoint, params) = find("GET", "/v1/machines/a%20%2F..%2Fb").unwrap();
        assert_eq!((endpoint.name, params["machine"].as_str()), ("show_machine", "a /../b"));
        for bad in ["/v1/machines/%ff", "/v1/machines/a/b/c", "", "/", "/v2/hello", "/v1/hello/"] {
            assert!(find("GET", bad).is_none(), "{bad}");
        }
    }
}
