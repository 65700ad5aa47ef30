-- sequence-parser: FASTA, FASTQ, gzip. Each value names its source.
local check = require "check"
local bio = require "bio.sequences"
local case, equal, fails, all = check.case, check.equal, check.fails, check.all

local function written(write, records, options)
  local out = {}
  local count = write(function(piece) out[#out + 1] = piece end, records, options)
  return table.concat(out), count
end

case("the rock's other name is the same module", function() equal(require "sequence_parser" == bio, true) end)

case("FASTA", function()
  -- The format's own rules (NCBI, "FASTA format for nucleotide sequences"): headers, wrapped lines, blank lines, both ends of line.
  local text = ">lcl|one first record \r\nACGT\r\nacgt NN\r\n\r\n>two\n>three\tx\nMKV*-\n"
  equal(all(bio.fasta(bio.text(text))), {
    { id = "lcl|one", description = "first record", seq = "ACGTacgtNN" },
    { id = "two", description = "", seq = "" },
    { id = "three", description = "x", seq = "MKV*-" },
  })
  equal(all(bio.fasta(bio.text "")), {})
  equal(all(bio.fasta(bio.text "\n\n")), {})
  -- A byte order mark is passed over.
  equal(all(bio.fasta(bio.text("\239\187\191>a\nA\n")))[1].id, "a")
end)

case("FASTA that is wrong", function()
  fails(function() all(bio.fasta(bio.text("ACGT\n", "x.fa"))) end, "x.fa:1: a FASTA file begins with '>'")
  fails(function() all(bio.fasta(bio.text(">a\nACGT\nAC1T\n", "x.fa"))) end, "x.fa:3: '1' in the sequence of a")
  fails(function() all(bio.fasta(bio.text(">a\nAC\0T\n", "x.fa"))) end, "x.fa:2: byte 0 in the sequence of a")
  fails(function() all(bio.fasta(bio.text(">\nACGT\n", "x.fa"))) end, "x.fa:1: a record without a name")
  fails(function() bio.fasta "no/such/file.fa" end, "no/such/file.fa")
  fails(function() bio.fasta(42) end, "a path, an open file")
end)

case("FASTA written is read again", function()
  local records = { { id = "a", description = "b c", seq = ("ACGT"):rep(40) }, { id = "e", description = "", seq = "" } }
  local text, count = written(bio.write_fasta, records, { width = 70 })
  equal(count, 2)
  equal(text:match("^>a b c\n(%u+)\n"), ("ACGT"):rep(40):sub(1, 70))
  equal(all(bio.fasta(bio.text(text))), records)
  equal(written(bio.write_fasta, records[1], { width = 0 }), ">a b c\n" .. records[1].seq .. "\n")
  fails(function() written(bio.write_fasta, { id = "a b", seq = "A" }) end, "a word without blanks")
  fails(function() written(bio.write_fasta, { id = "a", description = "x\n>y", seq = "A" }) end, "more than one line")
  fails(function() written(bio.write_fasta, { id = "a", seq = "A\n>y" }) end, "characters that FASTA does not know")
end)

case("a file is streamed in pieces, wherever they are cut", function()
  local text = ">a x\nACGT\nAC\n>b\nGG\n"
  for size = 1, 7 do
    local at = 1
    local records = all(bio.fasta(function()
      local piece = text:sub(at, at + size - 1)
      at = at + size
      if piece ~= "" then return piece end
    end))
    equal(records, { { id = "a", description = "x", seq = "ACGTAC" }, { id = "b", description = "", seq = "GG" } })
  end
end)

case("FASTA from a path and from an open file", function()
  local path = os.tmpname()
  bio.write_fasta(path, { { id = "a", seq = "ACGT" } })
  equal(#all(bio.fasta(path)), 1)
  local file = io.open(path, "rb")
  equal(all(bio.fasta(file))[1].seq, "ACGT")
  file:close()
  os.remove(path)
end)

-- Cock et al. 2010, the wrapped record of their figure; Wikipedia, "FASTQ format", the first example.
local WIKIPEDIA = "@SEQ_ID\nGATTTGGGGTTCAAAGCAGTATCGATCAAATAGTAAATCCATTTGTTCAACTCACAGTTT\n+\n!''*((((***+))%%%++)(%%%%).1***-+*''))**55CCF>>>>>>CCCCCCC65\n"

case("FASTQ", function()
  local records = all(bio.fastq(bio.text(WIKIPEDIA)))
  equal(#records, 1)
  equal({ records[1].id, #records[1].seq, #records[1].quality, records[1].offset }, { "SEQ_ID", 60, 60, 33 })
  local scores = bio.scores(records[1])
  equal({ scores[1], scores[2], scores[4], scores[60] }, { 0, 6, 9, 20 })
end)

case("qualities may begin with @ and go over lines", function()
  local text = "@r1 d\nACGT\nAC\n+r1\n@@#I\n+I\n@r2\nA\n+\n@\n"
  equal(all(bio.fastq(bio.text(text))), {
    { id = "r1", description = "d", seq = "ACGTAC", quality = "@@#I+I", offset = 33 },
    { id = "r2", description = "", seq = "A", quality = "@", offset = 33 },
  })
end)

case("the encoding is found out or asked for", function()
  local function of(quality) return "@a\n" .. ("A"):rep(#quality) .. "\n+\n" .. quality .. "\n" end
  -- Cock et al. 2010, table 1: Sanger from '!' (33), Illumina 1.3+ from '@' (64).
  equal(bio.detect_encoding(bio.text(of "!IIII")), "phred33")
  equal(bio.detect_encoding(bio.text(of "@Bhhh")), "phred64")
  for _, both in ipairs { "IIII", "@JK", ";hh", "h~" } do
    local found, why = bio.detect_encoding(bio.text(of(both)))
    equal(found, nil)
    equal(why:find("Phred+33 and Phred+64", 1, true) ~= nil, true)
    fails(function() all(bio.fastq(bio.text(of(both)))) end, "is this Phred+33 or Phred+64?")
    equal(#all(bio.fastq(bio.text(of(both)), { encoding = "phred33" })), 1)
  end
  local record = all(bio.fastq(bio.text(of "@Bh"), { encoding = "phred64" }))[1]
  equal(bio.scores(record), { 0, 2, 40 })
  fails(function() all(bio.fastq(bio.text(of "@!"), { encoding = "phred64" })) end, "below 0 in Phred+64")
  fails(function() bio.fastq(bio.text(""), { encoding = "solexa" }) end, "not solexa")
  -- A later record decides, and the earlier ones are not lost.
  local many = {}
  for at = 1, 50 do many[at] = of(at == 50 and "#" or "I") end
  equal(#all(bio.fastq(bio.text(table.concat(many)))), 50)
end)

case("Phred+64 is written as Phred+33", function()
  local record = all(bio.fastq(bio.text "@a\nACGT\n+\n@Bhf\n"))[1]
  equal(written(bio.write_fastq, record), "@a\nACGT\n+\n!#IG\n")
end)

case("the mean error is not the mean quality", function()
  -- By definition: Q10 is 0.1, Q20 is 0.01, Q30 is 0.001.
  local record = all(bio.fastq(bio.text "@a\nACG\n+\n+5?\n"))[1]
  equal(bio.scores(record), { 10, 20, 30 })
  check.near(bio.mean_error(record), 0.037, 1e-12)
end)

case("FASTQ that is wrong", function()
  local function bad(text, says) fails(function() all(bio.fastq(bio.text(text, "r.fq"), { encoding = "phred33" })) end, says) end
  bad("ACGT\n", "r.fq:1: a record begins with '@'")
  bad("@a\nACGT\n", "r.fq:2: the record a of line 1 is cut off")
  bad("@a\nACGT\n+\nII\n", "r.fq:4: the record a of line 1 is cut off")
  bad("@a\nACGT\n+\nIIIII\n", "r.fq:4: 5 qualities for 4 bases in a")
  bad("@a\nACGT\n+b\nIIII\n", "r.fq:3: the second name is 'b', the first was 'a'")
  bad("@a\nAC T\n+\nIIII\n", "r.fq:2: a character that is no base")
  bad("@a\nACGT\n+\nII\tI\n", "r.fq:4: a character that is no quality")
  bad("@\nACGT\n+\nIIII\n", "r.fq:1: a record without a name")
end)

case("gzip", function()
  if not pcall(require, "zlib") then error("the module zlib is not here: install the Debian package lua-zlib (cargo xtask install)", 0) end
  local records = {}
  for at = 1, 500 do records[at] = { id = "r" .. at, description = "", seq = ("ACGTTGCA"):rep(at % 90) } end
  local packed = written(bio.write_fasta, records, { gzip = true })
  equal(packed:sub(1, 2), "\031\139")
  equal(all(bio.fasta(bio.text(packed))), records)
  -- Two members are one file (RFC 1952, section 2.2), however they are cut, with padding after them.
  local twice, at = packed .. packed .. ("\0"):rep(512), 1
  local count = 0
  for _ in bio.fasta(function()
    local piece = twice:sub(at, at + 136)
    at = at + 137
    if piece ~= "" then return piece end
  end) do count = count + 1 end
  equal(count, 1000)
  fails(function() all(bio.fasta(bio.text(packed:sub(1, -9), "x.gz"))) end, "x.gz: the gzip stream is cut off")
  fails(function() all(bio.fasta(bio.text(packed:sub(1, 40) .. ("x"):rep(40) .. packed:sub(81), "x.gz"))) end, "x.gz: not a valid gzip stream")
end)

case("without the module zlib the error says what to install", function()
  local loaded, preload = package.loaded.zlib, package.preload.zlib
  package.loaded.zlib, package.preload.zlib = nil, function() error("not here") end
  local ok, problem = pcall(function() return all(bio.fasta(bio.text("\031\139\008\0rest", "x.gz"))) end)
  package.loaded.zlib, package.preload.zlib = loaded, preload
  equal(ok, false)
  equal(problem, "x.gz: this is gzip, and the module 'zlib' is not there; install the rock lua-zlib")
end)

case("spoilt input is an error with a sentence, or is read", function()
  local fasta = ">a b\nACGT\nAC\n\n>c\nGGG\n"
  check.spoil(function(text) all(bio.fasta(bio.text(text))) end, { fasta }, 1500)
  check.spoil(function(text) all(bio.fastq(bio.text(text))) end, { WIKIPEDIA, "@r1 d\nACGT\nAC\n+r1\n@@#I\n+I\n@r2\nA\n+\n@\n" }, 1500)
end)

case("large files are read quickly", function()
  local random = check.random(3)
  local read = "@read\n" .. check.bases(random, 150) .. "\n+\n" .. ("I"):rep(149) .. "#\n"
  local text = read:rep(10000)
  local began = os.clock()
  local count = 0
  for _ in bio.fastq(bio.text(text)) do count = count + 1 end
  equal(count, 10000)
  local long = ">chromosome\n" .. (check.bases(random, 70) .. "\n"):rep(20000)
  equal(#all(bio.fasta(bio.text(long)))[1].seq, 1400000)
  local took = os.clock() - began
  if took > 2 then error(("took %.2f s"):format(took)) end
end)

check.done()
