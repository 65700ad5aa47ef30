// The same by the package xen-api: node bench.mjs NODE_MODULES https://ADDRESS
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const [modules, url] = process.argv.slice(2)
const { createClient } = await import(pathToFileURL(createRequire(modules + '/').resolve('xen-api')))
const median = async (work, times) => {
  const taken = []
  for (let n = 0; n < times; n++) {
    const begun = performance.now()
    await work()
    taken.push(performance.now() - begun)
  }
  return taken.sort((a, b) => a - b)[times >> 1]
}
const options = { url, auth: { user: 'root', password: 'secret' }, allowUnauthorized: true }
const plain = createClient({ ...options, watchEvents: false })
await plain.connect()
const [vm] = await plain.call('VM.get_by_name_label', 'vm-00000')
const result = {
  call_ms: await median(() => plain.call('VM.get_power_state', vm), 500),
  all_records_ms: await median(() => plain.call('VM.get_all_records'), 20),
}
const begun = performance.now()
const watching = createClient({ ...options, watchEvents: ['VM', 'pool'] })
await watching.connect()
await watching.objectsFetched
result.first_picture_ms = performance.now() - begun
result.memory_mib = process.memoryUsage().rss / (1 << 20)
console.log(JSON.stringify(result, null, 2))
process.exit(0)
