// The package xen-api of npm against xapi-sim, as Xen Orchestra uses it: its cache of objects follows events.
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const [modules, coordinator, member] = process.argv.slice(2)
const { createClient } = await import(pathToFileURL(createRequire(modules + '/').resolve('xen-api')))

const connect = (url, password, watchEvents) =>
  createClient({ url, auth: { user: 'root', password }, allowUnauthorized: true, watchEvents })

const check = (condition, what) => {
  if (!condition) throw new Error(what)
}

const wrong = connect(coordinator, 'wrong', false)
await wrong.connect().then(
  () => check(false, 'a wrong password was taken'),
  error => check(error.code === 'SESSION_AUTHENTICATION_FAILED', String(error))
)

// Sent on by a member to the coordinator; both are at the same port.
const redirected = connect(member, 'secret', false)
await redirected.connect()
check(Object.keys(await redirected.call('host.get_all_records')).length === 2, 'hosts')
await redirected.disconnect()

const xapi = connect(coordinator, 'secret', true)
await xapi.connect()
await xapi.objectsFetched
const all = () => Object.values(xapi.objects.all)
const template = all().find(one => one.$type === 'VM' && one.name_label === 'linux-lua')
check(template !== undefined, 'the template is not in the cache')
check(typeof template.memory_static_max === 'number', 'integers are numbers')

const vm = await xapi.call('VM.clone', template.$ref, 'node <&> "ü"')
await xapi.call('VM.provision', vm)
await xapi.callAsync('VM.start', vm, false, false)
const until = async (what, fits) => {
  while (true) {
    const one = await xapi.barrier(vm)
    if (fits(one)) return one
    check(what, 'never')
  }
}
const running = await until('running', one => one !== undefined && one.power_state === 'Running')
check(running.name_label === 'node <&> "ü"', running.name_label)
await xapi.callAsync('VM.hard_shutdown', vm)
await until('halted', one => one.power_state === 'Halted')
await xapi.call('VM.hard_shutdown', vm).then(
  () => check(false, 'a VM that is off was ended'),
  error => check(error.code === 'VM_BAD_POWER_STATE' && error.params[2] === 'halted', String(error))
)
await xapi.call('VM.destroy', vm)
await xapi.disconnect()
console.log('ok')
process.exit(0)
