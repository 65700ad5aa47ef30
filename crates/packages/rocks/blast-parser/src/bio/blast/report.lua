--- BLAST's XML (outfmt 5), query by query. Elements: NCBI_BlastOutput.mod.dtd of the NCBI C++ toolkit.
local xml = require "bio.blast.xml"
local M = {}

-- Elements that hold one value, and the fields that they become: where, name, whether a number.
local VALUES = {
  BlastOutput_program = { "report", "program" }, BlastOutput_version = { "report", "version" }, BlastOutput_db = { "report", "database" },
  ["BlastOutput_query-ID"] = { "report", "query_id" }, ["BlastOutput_query-def"] = { "report", "query_def" }, ["BlastOutput_query-len"] = { "report", "query_len", true },
  Parameters_matrix = { "parameters", "matrix" }, Parameters_expect = { "parameters", "expect", true }, Parameters_include = { "parameters", "include", true },
  ["Parameters_sc-match"] = { "parameters", "match", true }, ["Parameters_sc-mismatch"] = { "parameters", "mismatch", true },
  ["Parameters_gap-open"] = { "parameters", "gap_open", true }, ["Parameters_gap-extend"] = { "parameters", "gap_extend", true }, Parameters_filter = { "parameters", "filter" },
  ["Iteration_iter-num"] = { "query", "number", true }, ["Iteration_query-ID"] = { "query", "query_id" }, ["Iteration_query-def"] = { "query", "query_def" },
  ["Iteration_query-len"] = { "query", "query_len", true }, Iteration_message = { "query", "message" },
  ["Statistics_db-num"] = { "statistics", "db_num", true }, ["Statistics_db-len"] = { "statistics", "db_len", true }, ["Statistics_hsp-len"] = { "statistics", "hsp_len", true },
  ["Statistics_eff-space"] = { "statistics", "eff_space", true }, Statistics_kappa = { "statistics", "kappa", true }, Statistics_lambda = { "statistics", "lambda", true },
  Statistics_entropy = { "statistics", "entropy", true },
  Hit_num = { "hit", "number", true }, Hit_id = { "hit", "id" }, Hit_def = { "hit", "def" }, Hit_accession = { "hit", "accession" }, Hit_len = { "hit", "len", true },
  Hsp_num = { "hsp", "number", true }, ["Hsp_bit-score"] = { "hsp", "bitscore", true }, Hsp_score = { "hsp", "score", true }, Hsp_evalue = { "hsp", "evalue", true },
  ["Hsp_query-from"] = { "hsp", "qstart", true }, ["Hsp_query-to"] = { "hsp", "qend", true }, ["Hsp_hit-from"] = { "hsp", "sstart", true }, ["Hsp_hit-to"] = { "hsp", "send", true },
  ["Hsp_query-frame"] = { "hsp", "qframe", true }, ["Hsp_hit-frame"] = { "hsp", "sframe", true }, Hsp_identity = { "hsp", "nident", true },
  Hsp_positive = { "hsp", "positive", true }, Hsp_gaps = { "hsp", "gaps", true }, ["Hsp_align-len"] = { "hsp", "length", true }, Hsp_qseq = { "hsp", "qseq" },
  Hsp_hseq = { "hsp", "sseq" }, Hsp_midline = { "hsp", "midline" },
}

--- Iterates over the queries of an XML report, each with all its hits: `{ number, query_id, query_def, query_len, message, hits,
-- statistics, report }`.
--
-- A hit is `{ number, id, def, accession, len, hsps }`, an HSP `{ number, bitscore, score, evalue, qstart, qend, sstart, send, qframe,
-- sframe, nident, positive, gaps, length, pident, qseq, sseq, midline }`: names as in tables, `pident` computed in per cent. `report` is
-- what the file says of itself, with `parameters`. One query at a time is in memory.
function M.report(input)
  local events, where = xml.events(input)
  local report = { parameters = {} }
  local now = { report = report, parameters = report.parameters }
  local text, wanted, root
  return function()
    while true do
      local event, value = events()
      if not event then return nil end
      if event == "open" then
        if not root then
          root = value
          if root ~= "BlastOutput" then
            where.fail(root:find("^BlastXML2") and "this is outfmt 14 or 16 (XML2); outfmt 5 is read here" or ("this is no BLAST report: it begins with <%s>"):format(root))
          end
        end
        if value == "Iteration" then
          now.query = { hits = {}, statistics = {}, report = report }
          now.statistics = now.query.statistics
        elseif value == "Hit" then
          if not now.query then where.fail("a hit outside of a query") end
          now.hit = { hsps = {} }
        elseif value == "Hsp" then
          if not now.hit then where.fail("an HSP outside of a hit") end
          now.hsp = {}
        end
        if VALUES[value] then
          wanted, text = value, {}
        elseif wanted then
          where.fail(("<%s> inside of <%s>, which holds a value"):format(value, wanted))
        end
      elseif event == "text" then
        if wanted then text[#text + 1] = value end
      elseif event == "close" then
        if wanted then
          local place, name, numeric = VALUES[wanted][1], VALUES[wanted][2], VALUES[wanted][3]
          local target = now[place]
          if not target then where.fail(("<%s> is not where it belongs"):format(wanted)) end
          local content = table.concat(text)
          if numeric then
            local number = content:find("^%s*[%+%-]?[%d%.]") and tonumber(content)
            if not number then where.fail(("<%s> is a number, not '%s'"):format(wanted, content:sub(1, 30))) end
            target[name] = number
          else
            target[name] = content
          end
          wanted, text = nil, nil
        elseif value == "Hsp" then
          local hsp = now.hsp
          if not (hsp.evalue and hsp.bitscore and hsp.qstart and hsp.qend) then where.fail("an HSP without e-value, score or place") end
          if hsp.nident and hsp.length and hsp.length > 0 then hsp.pident = 100 * hsp.nident / hsp.length end
          table.insert(now.hit.hsps, hsp)
          now.hsp = nil
        elseif value == "Hit" then
          table.insert(now.query.hits, now.hit)
          now.hit = nil
        elseif value == "Iteration" then
          local query = now.query
          now.query, now.statistics = nil, nil
          return query
        end
      end
    end
  end
end

--- Iterates over the HSPs of an XML report as flat hits, with the names that tables have (`qseqid`, `sseqid`, `pident`, `length`, ..,
-- `qlen`, `slen`, `stitle`), so that filters and best hits work on both.
function M.report_hits(input)
  local queries = M.report(input)
  local query, hit_at, hsp_at
  return function()
    while true do
      if not query then
        query, hit_at, hsp_at = queries(), 1, 1
        if not query then return nil end
      end
      local hit = query.hits[hit_at]
      if not hit then
        query = nil
      else
        local hsp = hit.hsps[hsp_at]
        hsp_at = hsp_at + 1
        if not hsp then
          hit_at, hsp_at = hit_at + 1, 1
        else
          -- As tables name queries: the first word of the description, if the id is one that BLAST made up.
          local id = query.query_id
          if (id == nil or id:find("^Query_%d+$") or id:find("^lcl|")) and query.query_def then id = query.query_def:match("%S+") or id end
          local flat = { qseqid = id, sseqid = hit.id, stitle = hit.def, sacc = hit.accession, qlen = query.query_len, slen = hit.len }
          for name, value in pairs(hsp) do flat[name] = value end
          flat.number, flat.gaps = nil, hsp.gaps or 0
          if hsp.qseq and hsp.sseq then
            local opens = 0
            for _, aligned in ipairs { hsp.qseq, hsp.sseq } do
              for _ in aligned:gmatch("%-+") do opens = opens + 1 end
            end
            flat.gapopen = opens
          end
          if hsp.nident and hsp.length then flat.mismatch = hsp.length - hsp.nident - flat.gaps end
          return flat
        end
      end
    end
  end
end

return M
