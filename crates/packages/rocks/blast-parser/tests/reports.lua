-- blast-parser: tables, XML, filters. Forms as the BLAST Command Line Applications User Manual and NCBI_BlastOutput.mod.dtd have them;
-- values are made up unless a source is named.
local check = require "check"
local bio = require "bio.blast"
local case, equal, near, fails, all = check.case, check.equal, check.near, check.fails, check.all
local text = bio.text

local TABLE = "q1\ts1\t98.50\t200\t3\t0\t1\t200\t11\t210\t2e-100\t 370\n"
  .. "q1\ts2\t90.00\t100\t10\t0\t50\t149\t400\t301\te-120\t370.1\n"
  .. "q2\ts1\t75\t80\t20\t1\t1\t80\t5\t84\t0.0\t1e+03\n"

local COMMENTED = "# BLASTP 2.9.0+\n# Query: q1 first protein\n# Database: swissprot\n"
  .. "# Fields: query acc.ver, subject acc.ver, % identity, evalue, bit score, % query coverage per hsp, subject title\n# 2 hits found\n"
  .. "q1\tP1.1\t55.5\t1e-20\t88.2\t70\tA protein, with a comma\nq1\tP2.1\t44\t1e-5\t40.0\tN/A\t\n"
  .. "# BLASTP 2.9.0+\n# Query: q2\n# Database: swissprot\n# 0 hits found\n# BLAST processed 2 queries\n"

case("the rock's other name is the same module", function() equal(require "blast_parser" == bio, true) end)

case("a table", function()
  local hits = all(bio.tabular(text(TABLE)))
  equal(hits[1], {
    qseqid = "q1", sseqid = "s1", pident = 98.5, length = 200, mismatch = 3, gapopen = 0, qstart = 1, qend = 200, sstart = 11, send = 210, evalue = 2e-100, bitscore = 370, line = 1,
  })
  -- Old versions leave the mantissa of small e-values out.
  equal({ hits[2].evalue, hits[2].send, hits[3].evalue, hits[3].bitscore }, { 1e-120, 301, 0, 1000 })
  equal(#all(bio.tabular(text ""))  , 0)
end)

case("columns by name", function()
  local hits = all(bio.tabular(text "q\ts\t10\t20\tTitle\n", { columns = "6 qseqid sseqid qlen slen stitle" }))
  equal(hits, { { qseqid = "q", sseqid = "s", qlen = 10, slen = 20, stitle = "Title", line = 1 } })
  equal(all(bio.tabular(text(TABLE:match("[^\n]+") .. "\t400\n"), { columns = "std qlen" }))[1].qlen, 400)
  equal(all(bio.tabular(text "5\n", { columns = { "nident" } }))[1].nident, 5)
  fails(function() bio.tabular(text "", { columns = "6" }) end, "a list or a string of names")
end)

case("a table with comments", function()
  local queries = {}
  local hits = all(bio.tabular(text(COMMENTED), { query = function(query) queries[#queries + 1] = query end }))
  equal(#hits, 2)
  equal({ hits[1].qaccver, hits[1].saccver, hits[1].qcovhsp, hits[1].stitle }, { "q1", "P1.1", 70, "A protein, with a comma" })
  equal({ hits[2].qcovhsp, hits[2].stitle }, { nil, "" })
  equal(queries, {
    { program = "BLASTP 2.9.0+", query = "q1 first protein", database = "swissprot", hits = 2, line = 1 },
    { program = "BLASTP 2.9.0+", query = "q2", database = "swissprot", hits = 0, line = 8 },
  })
end)

case("tables that are wrong", function()
  local function bad(line, says) fails(function() all(bio.tabular(text(line, "b.tsv"))) end, says) end
  bad("a\tb\n", "b.tsv:1: 12 columns are wanted, there are 2")
  bad("a\tb\t1\n", "b.tsv:1: 12 columns are wanted, there are 3")
  bad(TABLE .. TABLE:gsub("\n", "\tmore\n", 1), "b.tsv:4: a line has more than the 12 columns")
  bad((TABLE:gsub("98.50", "high")), "b.tsv:1: pident is a number, not 'high'")
  bad("# Fields: query id, nonsense\n", "the column 'nonsense' is not known")
end)

local function hsp(from, to, evalue, qseq, hseq)
  return ([[<Hsp><Hsp_num>1</Hsp_num><Hsp_bit-score>55.1</Hsp_bit-score><Hsp_score>131</Hsp_score><Hsp_evalue>%s</Hsp_evalue>
  <Hsp_query-from>%d</Hsp_query-from><Hsp_query-to>%d</Hsp_query-to><Hsp_hit-from>7</Hsp_hit-from><Hsp_hit-to>15</Hsp_hit-to>
  <Hsp_query-frame>0</Hsp_query-frame><Hsp_hit-frame>0</Hsp_hit-frame><Hsp_identity>8</Hsp_identity><Hsp_positive>8</Hsp_positive>
  <Hsp_gaps>1</Hsp_gaps><Hsp_align-len>10</Hsp_align-len><Hsp_qseq>%s</Hsp_qseq><Hsp_hseq>%s</Hsp_hseq><Hsp_midline>MKA  LVWYT</Hsp_midline></Hsp>
]]):format(evalue, from, to, qseq, hseq)
end

local REPORT = [==[
<?xml version="1.0"?>
<!DOCTYPE BlastOutput PUBLIC "-//NCBI//NCBI BlastOutput/EN" "http://www.ncbi.nlm.nih.gov/dtd/NCBI_BlastOutput.dtd">
<BlastOutput>
  <BlastOutput_program>blastp</BlastOutput_program>
  <BlastOutput_version>BLASTP 2.9.0+</BlastOutput_version>
  <BlastOutput_db>a&amp;b</BlastOutput_db>
  <BlastOutput_param><Parameters><Parameters_matrix>BLOSUM62</Parameters_matrix><Parameters_expect>10</Parameters_expect></Parameters></BlastOutput_param>
<BlastOutput_iterations>
<Iteration>
  <Iteration_iter-num>1</Iteration_iter-num>
  <Iteration_query-ID>Query_1</Iteration_query-ID>
  <Iteration_query-def>q1 5&apos; end &lt;x&gt; &quot;y&quot; &#945;&#x3b2;</Iteration_query-def>
  <Iteration_query-len>40</Iteration_query-len>
<Iteration_hits>
<Hit><Hit_num>1</Hit_num><Hit_id>sp|P1|A</Hit_id><Hit_def><![CDATA[A <fine> & good one]]></Hit_def><Hit_accession>P1</Hit_accession><Hit_len>120</Hit_len>
<Hit_hsps>
]==] .. hsp(1, 10, "1e-30", "MKAX-LVWYT", "MKAYYLVWYT") .. hsp(21, 30, "2.5", "MKAXLLVWYT", "MKA-LLVWYT") .. [==[
</Hit_hsps></Hit>
</Iteration_hits>
<Iteration_stat><Statistics><Statistics_db-num>2</Statistics_db-num><Statistics_kappa>0.041</Statistics_kappa></Statistics></Iteration_stat>
</Iteration>
<Iteration>
  <Iteration_iter-num>2</Iteration_iter-num><Iteration_query-ID>Query_2</Iteration_query-ID><Iteration_query-def>q2</Iteration_query-def><Iteration_query-len>9</Iteration_query-len>
  <Iteration_hits/>
  <Iteration_message>No hits found</Iteration_message>
</Iteration>
</BlastOutput_iterations>
</BlastOutput>
]==]

case("XML", function()
  local queries = all(bio.report(text(REPORT)))
  equal(#queries, 2)
  local first, second = queries[1], queries[2]
  equal(first.report, { program = "blastp", version = "BLASTP 2.9.0+", database = "a&b", parameters = { matrix = "BLOSUM62", expect = 10 } })
  equal({ first.number, first.query_id, first.query_len }, { 1, "Query_1", 40 })
  equal(first.query_def, "q1 5' end <x> \"y\" \206\177\206\178")
  equal(first.statistics, { db_num = 2, kappa = 0.041 })
  local hit = first.hits[1]
  equal({ hit.id, hit.def, hit.accession, hit.len, #hit.hsps }, { "sp|P1|A", "A <fine> & good one", "P1", 120, 2 })
  equal({ hit.hsps[1].evalue, hit.hsps[1].bitscore, hit.hsps[1].qend, hit.hsps[1].pident, hit.hsps[1].midline }, { 1e-30, 55.1, 10, 80, "MKA  LVWYT" })
  equal({ second.query_def, #second.hits, second.message }, { "q2", 0, "No hits found" })
end)

case("XML as flat hits", function()
  local hits = all(bio.report_hits(text(REPORT)))
  equal(#hits, 2)
  local hit = hits[1]
  equal({ hit.qseqid, hit.sseqid, hit.stitle, hit.qlen, hit.slen, hit.length, hit.mismatch, hit.gapopen }, { "q1", "sp|P1|A", "A <fine> & good one", 40, 120, 10, 1, 1 })
  near(bio.query_coverage(hit), 25, 1e-12)
end)

case("XML wherever the stream is cut into pieces", function()
  for size = 1, 40, 3 do
    local at = 1
    local queries = all(bio.report(function()
      local piece = REPORT:sub(at, at + size - 1)
      at = at + size
      if piece ~= "" then return piece end
    end))
    equal(queries, all(bio.report(text(REPORT))))
  end
end)

case("XML that is wrong or hostile", function()
  local function bad(from, to, says)
    local at, stop = REPORT:find(from, 1, true)
    fails(function() all(bio.report(text(REPORT:sub(1, at - 1) .. to .. REPORT:sub(stop + 1), "r.xml"))) end, says)
  end
  bad("a&amp;b", "a&evil;b", "r.xml:6: the entity '&evil;' is not known")
  bad("a&amp;b", "a&b", "r.xml:6: an '&' that begins no entity")
  bad("a&amp;b", "&#xD800;", "is not known")
  bad("a&amp;b", "&#99999999999999;", "is not known")
  bad("</Iteration_iter-num>", "</Iteration>", "r.xml:10: </Iteration> where <Iteration_iter-num> is open")
  bad("<Iteration_iter-num>1", "<Iteration_iter-num>one", "is a number, not 'one'")
  bad("<Hsp_evalue>1e-30</Hsp_evalue>", "", "an HSP without e-value")
  bad("BlastOutput.dtd\">", "BlastOutput.dtd\" [<!ENTITY a \"aaaa\">]>", "a DOCTYPE that declares something is refused")
  bad("</BlastOutput>\n", "", "the document is cut off: <BlastOutput> is not closed")
  bad("</BlastOutput>\n", "</BlastOutput><x>", "<x> after the document")
  bad("<Hit_num>1", "<Hit_num><b>1</b>", "<b> inside of <Hit_num>")
  fails(function() all(bio.report(text "<html></html>")) end, "this is no BLAST report: it begins with <html>")
  fails(function() all(bio.report(text "<BlastXML2></BlastXML2>")) end, "outfmt 5 is read here")
  fails(function() all(bio.report(text "no xml")) end, "this is no XML")
  fails(function() all(bio.report(text "")) end, "this is no XML")
  fails(function() all(bio.report(text(("<BlastOutput>"):rep(1000)))) end, "more than 64 tags")
  fails(function() all(bio.report(text("<BlastOutput><" .. ("a"):rep(1000) .. ">"))) end, "a tag without a name")
end)

case("a long text takes no more than its length", function()
  local long, sent = ("A"):rep(4096), 0
  local began = os.clock()
  fails(function()
    all(bio.report(function()
      sent = sent + 1
      return sent == 1 and "<BlastOutput>" or long
    end))
  end, "something longer than")
  local took = os.clock() - began
  if took > 2 then error(("took %.2f s"):format(took)) end
end)

case("filters", function()
  local function names(criteria)
    local out = {}
    for hit in bio.filter(bio.tabular(text(TABLE), { columns = bio.columns }), criteria) do out[#out + 1] = hit.qseqid .. hit.sseqid end
    return table.concat(out, " ")
  end
  equal(names {}, "q1s1 q1s2 q2s1")
  equal(names { evalue = 1e-110 }, "q1s2 q2s1")
  equal(names { identity = 90, length = 150 }, "q1s1")
  equal(names { bitscore = 370.05, mismatches = 15 }, "q1s2")
  equal(names { where = function(hit) return hit.sseqid == "s1" end }, "q1s1 q2s1")
  fails(function() names { identitiy = 3 } end, "no criterion 'identitiy'")
  fails(function() names { identity = "90" } end, "identity is a number")
  fails(function() names { query_coverage = 50 } end, "neither qlen nor qcovhsp")
end)

case("best hits", function()
  local best, order = bio.best_hits(bio.tabular(text(TABLE)))
  equal(order, { "q1", "q2" })
  equal({ best.q1.sseqid, best.q2.sseqid }, { "s2", "s1" })
  local groups = {}
  for query, list in bio.by_query(bio.tabular(text(TABLE))) do groups[#groups + 1] = query .. #list end
  equal(groups, { "q12", "q21" })
  local function hit(q, s, score) return { qseqid = q, sseqid = s, bitscore = score, evalue = 0, pident = 1 } end
  local pairs_found = bio.reciprocal_best_hits({ hit("a", "x", 5), hit("a", "y", 9), hit("b", "x", 7) }, { hit("x", "b", 7), hit("y", "b", 9), hit("y", "a", 3) })
  equal(#pairs_found, 1)
  equal({ pairs_found[1].a, pairs_found[1].b }, { "b", "x" })
end)

case("spoilt input is an error with a sentence, or is read", function()
  check.spoil(function(input) all(bio.tabular(text(input))) end, { TABLE, COMMENTED }, 1500)
  check.spoil(function(input) all(bio.report_hits(text(input))) end, { REPORT }, 1500)
end)

case("large tables are read quickly", function()
  local began = os.clock()
  local count = 0
  for _ in bio.filter(bio.tabular(text(TABLE:rep(10000))), { identity = 90 }) do count = count + 1 end
  equal(count, 20000)
  local took = os.clock() - began
  if took > 2 then error(("took %.2f s"):format(took)) end
end)

check.done()
