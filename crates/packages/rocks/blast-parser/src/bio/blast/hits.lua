--- Filters and best hits. All take an iterator (or a list) of flat hits, from tables or from `report_hits`.
local M = {}

local function each(hits)
  if type(hits) == "function" then return hits end
  if type(hits) ~= "table" then error("blast: an iterator or a list of hits is wanted, not a " .. type(hits), 0) end
  local at = 0
  return function()
    at = at + 1
    return hits[at]
  end
end

local function field(hit, name)
  local value = hit[name]
  if type(value) ~= "number" then error(("blast: a hit of %s has no %s"):format(tostring(hit.qseqid), name), 0) end
  return value
end

-- Criteria by name: what they compare.
local CRITERIA = {
  evalue = function(hit, limit) return field(hit, "evalue") <= limit end,
  bitscore = function(hit, limit) return field(hit, "bitscore") >= limit end,
  identity = function(hit, limit) return field(hit, "pident") >= limit end,
  length = function(hit, limit) return field(hit, "length") >= limit end,
  mismatches = function(hit, limit) return field(hit, "mismatch") <= limit end,
  query_coverage = function(hit, limit) return M.query_coverage(hit) >= limit end,
}

--- How much of the query one HSP covers, in per cent: from its places and `qlen`, else what the column `qcovhsp` says.
function M.query_coverage(hit)
  if hit.qlen and hit.qstart and hit.qend and hit.qlen > 0 then return 100 * (math.abs(hit.qend - hit.qstart) + 1) / hit.qlen end
  if hit.qcovhsp then return hit.qcovhsp end
  error(("blast: a hit of %s has neither qlen nor qcovhsp"):format(tostring(hit.qseqid)), 0)
end

--- Iterates over the hits that meet all criteria: `evalue` (at most), `bitscore`, `identity` (per cent), `length`, `query_coverage` (per
-- cent; at least), `mismatches` (at most), and `where`, a function.
function M.filter(hits, criteria)
  local next_hit = each(hits)
  local checks = {}
  for name, limit in pairs(criteria or {}) do
    if name == "where" then
      checks[#checks + 1] = { limit }
    else
      local check = CRITERIA[name]
      if not check then error(("filter: there is no criterion '%s'"):format(tostring(name)), 0) end
      if type(limit) ~= "number" then error(("filter: %s is a number"):format(name), 0) end
      checks[#checks + 1] = { check, limit }
    end
  end
  return function()
    for hit in next_hit do
      local good = true
      for _, check in ipairs(checks) do
        if not check[1](hit, check[2]) then
          good = false
          break
        end
      end
      if good then return hit end
    end
    return nil
  end
end

--- Iterates over groups of hits of one query that stand together: `query, list`.
function M.by_query(hits)
  local next_hit = each(hits)
  local held = next_hit()
  return function()
    if not held then return nil end
    local query, list = held.qseqid, { held }
    while true do
      held = next_hit()
      if not held or held.qseqid ~= query then return query, list end
      list[#list + 1] = held
    end
  end
end

-- Whether a is better than b: score, then e-value, then identity; else the one that came first.
local function better(a, b)
  local x, y = field(a, "bitscore"), field(b, "bitscore")
  if x ~= y then return x > y end
  x, y = field(a, "evalue"), field(b, "evalue")
  if x ~= y then return x < y end
  return (a.pident or 0) > (b.pident or 0)
end

--- The best hit of each query: a table from query to hit, and the queries in the order in which they came. Best is the highest bit score,
-- then the lowest e-value, then the highest identity. Memory for one hit a query.
function M.best_hits(hits)
  local best, order = {}, {}
  for hit in each(hits) do
    local query = hit.qseqid
    if not best[query] then
      order[#order + 1] = query
      best[query] = hit
    elseif better(hit, best[query]) then
      best[query] = hit
    end
  end
  return best, order
end

--- Pairs that are each other's best hit: `forward` are hits of A in B, `backward` of B in A. Returns `{ { a, b, forward, backward }, .. }`
-- in the order of the first.
function M.reciprocal_best_hits(forward, backward)
  local there, order = M.best_hits(forward)
  local back = M.best_hits(backward)
  local result = {}
  for _, query in ipairs(order) do
    local hit = there[query]
    local other = back[hit.sseqid]
    if other and other.sseqid == query then result[#result + 1] = { a = query, b = hit.sseqid, forward = hit, backward = other } end
  end
  return result
end

return M
