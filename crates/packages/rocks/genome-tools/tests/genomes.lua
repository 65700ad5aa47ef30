-- genome-tools: GFF3, intervals, open reading frames, coding density. Each value names its source.
local check = require "check"
local bio = require "bio.genome"
local sequences = require "bio.sequences"
local utils = require "bio.utils"
local case, equal, near, fails, all = check.case, check.equal, check.near, check.fails, check.all
local text = sequences.text

-- GFF3 specification, "The Canonical Gene".
local function row(kind, start, stop, phase, attributes) return ("ctg123\t.\t%s\t%d\t%d\t.\t+\t%s\t%s\n"):format(kind, start, stop, phase, attributes) end
local CANONICAL = "##gff-version 3.1.26\n##sequence-region ctg123 1 1497228\n"
  .. row("gene", 1000, 9000, ".", "ID=gene00001;Name=EDEN")
  .. row("TF_binding_site", 1000, 1012, ".", "ID=tfbs00001;Parent=gene00001")
  .. row("mRNA", 1050, 9000, ".", "ID=mRNA00001;Parent=gene00001;Name=EDEN.1")
  .. row("mRNA", 1050, 9000, ".", "ID=mRNA00002;Parent=gene00001;Name=EDEN.2")
  .. row("mRNA", 1300, 9000, ".", "ID=mRNA00003;Parent=gene00001;Name=EDEN.3")
  .. row("exon", 1300, 1500, ".", "ID=exon00001;Parent=mRNA00003")
  .. row("exon", 1050, 1500, ".", "ID=exon00002;Parent=mRNA00001,mRNA00002")
  .. row("exon", 3000, 3902, ".", "ID=exon00003;Parent=mRNA00001,mRNA00003")
  .. row("exon", 5000, 5500, ".", "ID=exon00004;Parent=mRNA00001,mRNA00002,mRNA00003")
  .. row("exon", 7000, 9000, ".", "ID=exon00005;Parent=mRNA00001,mRNA00002,mRNA00003")
  .. row("CDS", 1201, 1500, 0, "ID=cds00001;Parent=mRNA00001;Name=edenprotein.1")
  .. row("CDS", 3000, 3902, 0, "ID=cds00001;Parent=mRNA00001;Name=edenprotein.1")
  .. row("CDS", 5000, 5500, 0, "ID=cds00001;Parent=mRNA00001;Name=edenprotein.1")
  .. row("CDS", 7000, 7600, 0, "ID=cds00001;Parent=mRNA00001;Name=edenprotein.1")
  .. row("CDS", 3301, 3902, 0, "ID=cds00003;Parent=mRNA00003;Name=edenprotein.3")

case("the rock's other name is the same module", function() equal(require "genome_tools" == bio, true) end)

case("GFF3", function()
  local gff = bio.read_gff3(text(CANONICAL))
  equal(#gff.features, 15)
  equal(gff.regions, { ctg123 = { start = 1, stop = 1497228 } })
  equal(#gff.by_id.cds00001, 4)
  equal(#gff.children.gene00001, 4)
  equal(#gff.children.mRNA00001, 8)
  equal(gff.orphans, {})
  local exon = gff.by_id.exon00002[1]
  equal(exon.attributes, { ID = "exon00002", Parent = { "mRNA00001", "mRNA00002" } })
  equal({ exon.seqid, exon.source, exon.type, exon.start, exon.stop, exon.score, exon.strand, exon.phase }, { "ctg123", nil, "exon", 1050, 1500, nil, "+", nil })
end)

case("escapes", function()
  -- GFF3 specification, "Description of the Format": tab, newline, %, ; = & , are escaped; blanks and multibyte characters are not.
  local line = "chr%201\tp%09q\tgene\t1\t9\t1e-5\t-\t.\tID=a%3Bb%3Dc%26d%2Ce;Note=x%2C y,z;odd=100%;Tïtle=ü\n"
  local feature = all(bio.gff3(text(line)))[1]
  equal({ feature.seqid, feature.source, feature.score, feature.strand }, { "chr 1", "p\tq", 1e-5, "-" })
  equal(feature.attributes, { ID = "a;b=c&d,e", Note = { "x, y", "z" }, odd = "100%", ["Tïtle"] = "ü" })
  local out = {}
  equal(bio.write_gff3(function(piece) out[#out + 1] = piece end, { feature }), 1)
  local again = all(bio.gff3(text(table.concat(out))))[1]
  again.line, feature.line = nil, nil
  equal(again, feature)
end)

case("what is written is read again", function()
  local first = bio.read_gff3(text(CANONICAL .. "###\n##FASTA\n>ctg123 x\nACGT\nAC\n"))
  equal(first.sequences, { ctg123 = "ACGTAC" })
  local out = {}
  bio.write_gff3(function(piece) out[#out + 1] = piece end, first.features, { regions = first.regions, sequences = first.sequences })
  local again = bio.read_gff3(text(table.concat(out)))
  for _, gff in ipairs { first, again } do
    for _, feature in ipairs(gff.features) do feature.line = nil end
  end
  equal(again, first)
end)

case("GFF3 that is wrong", function()
  local function bad(line, says) fails(function() bio.read_gff3(text("##gff-version 3\n" .. line .. "\n", "x.gff")) end, says) end
  bad("a\tb\tc", "x.gff:2: a feature has 9 columns with tabs between, not 3")
  bad("a\t.\tgene\t1\t2\t.\t+\t.\t.\t.", "not more")
  bad("a\t.\tgene\tx\t2\t.\t+\t.\t.", "x.gff:2: the start is a whole number, not 'x'")
  bad("a\t.\tgene\t0\t2\t.\t+\t.\t.", "positions count from 1")
  bad("a\t.\tgene\t5\t2\t.\t+\t.\t.", "the end 2 is before the start 5")
  bad("a\t.\tgene\t1\t2\thigh\t+\t.\t.", "the score 'high' is no number")
  bad("a\t.\tgene\t1\t2\t.\tx\t.\t.", "the strand is")
  bad("a\t.\tCDS\t1\t2\t.\t+\t.\t.", "a CDS has a phase")
  bad("a\t.\tgene\t1\t2\t.\t+\t3\t.", "the phase is 0, 1, 2")
  bad("a\t.\tgene\t1\t2\t.\t+\t.\tnonsense", "is not of the form name=value")
  bad("a\t.\tgene\t1\t2\t.\t+\t.\tID=a;ID=b", "occurs twice")
  bad("a\t.\tgene\t1\t2\t.\t+\t.\tID=a;Parent=b\na\t.\tgene\t1\t2\t.\t+\t.\tID=b;Parent=a", "is its own ancestor")
  fails(function() all(bio.gff3(text("##gff-version 2\n", "x.gff"))) end, "this is GFF version 2")
  equal(#bio.read_gff3(text("a\t.\tgene\t1\t2\t.\t+\t.\tID=a;Parent=gone\n")).orphans, 1)
end)

local function spans(list)
  local out = {}
  for at, one in ipairs(list) do out[at] = ("%d-%d%s"):format(one.start, one.stop, one.depth and ":" .. one.depth or "") end
  return table.concat(out, " ")
end
local function span(...)
  local list, values = {}, { ... }
  for at = 1, #values, 2 do list[#list + 1] = { start = values[at], stop = values[at + 1] } end
  return list
end

case("merging", function()
  -- bedtools documentation, "merge", default behaviour: A.bed 100-200 180-250 250-500 501-1000, there from 0 and without the end.
  equal(spans(bio.merge(span(101, 200, 181, 250, 251, 500, 502, 1000))), "101-500 502-1000")
  equal(spans(bio.merge(span(101, 200, 502, 1000), 301)), "101-1000")
  equal(spans(bio.merge(span(5, 6, 1, 9, 2, 3))), "1-9")
  equal(bio.merge {}, {})
  equal(bio.covered(span(1, 10, 5, 12, 20, 20)), 13)
end)

case("intersecting and subtracting", function()
  -- bedtools documentation: "intersect" (100-200 and 150-180 give 150-180), "subtract" (10-20 and 100-200 without 0-30 and 180-300 leave
  -- 100-180).
  equal(spans(bio.intersect(span(101, 200), span(151, 180))), "151-180")
  equal(spans(bio.subtract(span(11, 20, 101, 200), span(1, 30, 181, 300))), "101-180")
  equal(spans(bio.subtract(span(1, 100), span(10, 20, 15, 30, 90, 200))), "1-9 31-89")
  equal(spans(bio.union(span(1, 3), span(4, 6, 9, 9))), "1-6 9-9")
  equal(spans(bio.gaps(span(3, 4, 8, 20), 1, 10)), "1-2 5-7")
end)

case("depth", function()
  equal(spans(bio.coverage(span(1, 10, 5, 12, 5, 6, 20, 20))), "1-4:1 5-6:3 7-10:2 11-12:1 20-20:1")
  equal(spans(bio.coverage(span(1, 3, 4, 6))), "1-6:1")
end)

case("the tree finds what a search through all finds", function()
  local random = check.random(11)
  local list = {}
  for at = 1, 2000 do
    local start = random(10000)
    list[at] = { start = start, stop = start + random(at % 50 == 0 and 3000 or 60), id = at }
  end
  local tree = bio.tree(list)
  equal(tree:size(), 2000)
  for _ = 1, 200 do
    local start = random(11000)
    local stop = start + random(200) - 1
    local wanted, found = {}, {}
    for _, one in ipairs(list) do
      if one.start <= stop and one.stop >= start then wanted[one.id] = true end
    end
    local last = 0
    for _, one in ipairs(tree:overlapping(start, stop)) do
      found[one.id] = true
      if one.start < last then error("not sorted") end
      last = one.start
    end
    equal(found, wanted)
  end
  equal(bio.tree({}):overlapping(1), {})
  fails(function() bio.merge { { start = 3, stop = 1 } } end, "interval 1 is not")
  fails(function() bio.tree { { start = 1 } } end, "interval 1 is not")
end)

case("open reading frames by hand", function()
  --          123456789012345678901234
  local seq = "CCATGAAATTTTAGCCATGGTGACC"
  equal(bio.orfs(seq, { min = 9, protein = true }), { { start = 3, stop = 14, strand = 1, frame = 3, length = 12, protein = "MKF" } })
  local reverse = utils.reverse_complement(seq)
  equal(bio.orfs(reverse, { min = 9, protein = true }), { { start = 12, stop = 23, strand = -1, frame = 3, length = 12, protein = "MKF" } })
  equal(bio.orfs(reverse, { min = 9, strand = 1 }), {})
  -- GTG begins a protein in code 11, and is methionine there.
  equal(bio.orfs("GTGAAATAA", { min = 9, starts = "table", table = 11, protein = true })[1].protein, "MK")
  equal(bio.orfs("GTGAAATAA", { min = 9 }), {})
  -- TGA does not end one in code 4.
  equal(bio.orfs("ATGTGATAA", { min = 9, table = 4, protein = true })[1].protein, "MW")
  equal(bio.orfs("ATGNNNTAA", { min = 3, protein = true, strand = 1 })[1].protein, "MX")
  equal(bio.orfs("ATGTNATAA", { min = 9, strand = 1 })[1].length, 9)
  fails(function() bio.orfs("ACG!") end, "'!' at position 4")
  fails(function() bio.orfs("ACGT", { starts = "x" }) end, "'ATG', 'table' or 'any'")
  fails(function() bio.orfs("ACGT", { minimum = 3 }) end, "no option 'minimum'")
end)

case("open reading frames that run off an end", function()
  equal(bio.orfs("AAATTTTAG", { min = 9, strand = 1 }), {})
  equal(bio.orfs("AAATTTTAG", { min = 9, strand = 1, partial = true }), { { start = 1, stop = 9, strand = 1, frame = 1, length = 9, partial = "5'" } })
  local cut
  for _, orf in ipairs(bio.orfs("TAAATGAAAC", { min = 6, strand = 1, partial = true })) do cut = orf.frame == 1 and orf or cut end
  equal(cut, { start = 4, stop = 9, strand = 1, frame = 1, length = 6, partial = "3'" })
  local both = bio.orfs("CCCCCCCCC", { min = 9, partial = true })
  equal(#both, 2)
  equal({ both[1].partial, both[2].partial, both[2].strand }, { "both", "both", -1 })
end)

-- The same by the definition, slowly: every stretch without a stop codon in each of six frames.
local function slowly(seq, least, id, any)
  local code, found = utils.genetic_code(id), {}
  for _, strand in ipairs { 1, -1 } do
    local read = strand == 1 and seq or utils.reverse_complement(seq)
    for frame = 1, 3 do
      local begin, closed
      for at = frame, #read - 2, 3 do
        local codon = read:sub(at, at + 2)
        if code.stops[codon] then
          if begin and at + 2 - begin + 1 >= least then
            local from, to = begin, at + 2
            if strand == -1 then from, to = #seq - to + 1, #seq - from + 1 end
            found[#found + 1] = ("%d..%d%s%d"):format(from, to, strand == 1 and "+" or "-", frame)
          end
          begin, closed = nil, true
        elseif not begin and (any or codon == "ATG") then
          begin = at
        end
      end
    end
  end
  table.sort(found)
  return found
end

case("open reading frames as the definition has them", function()
  local random = check.random(5)
  for length = 1, 60 do
    for _, setting in ipairs { { 1, "ATG" }, { 4, "ATG" }, { 11, "any" } } do
      local seq = check.bases(random, length * 7 + length % 3)
      local found = {}
      for _, orf in ipairs(bio.orfs(seq, { min = 12, table = setting[1], starts = setting[2] })) do
        found[#found + 1] = ("%d..%d%s%d"):format(orf.start, orf.stop, orf.strand == 1 and "+" or "-", orf.frame)
      end
      table.sort(found)
      equal(found, slowly(seq, 12, setting[1], setting[2] == "any"))
    end
  end
end)

case("coding density", function()
  -- By hand: 1..30 and 21..50 overlap by ten; 61..70 lies on the other strand.
  local features = { { start = 1, stop = 30, strand = 1 }, { start = 21, stop = 50, strand = "-" }, { start = 61, stop = 70, strand = "-" } }
  local density = bio.coding_density(features, 100)
  near(density.density, 0.6, 1e-12)
  near(density.plain, 0.7, 1e-12)
  equal({ density.covered, density.sum, density.plus, density.minus, density.both, density.features }, { 60, 70, 30, 40, 10, 3 })
  equal(spans(density.merged), "1-50 61-70")
  -- The canonical gene: 300 + 903 + 501 + 601 coding bases, those of the third transcript among them.
  equal(bio.coding_density(bio.read_gff3(text(CANONICAL)).features, 1497228).covered, 2305)
  -- Features of GenBank count by their parts.
  local joined = { { key = "CDS", location = sequences.parse_location "complement(join(1..10,21..30))" }, { key = "gene", location = sequences.parse_location "1..30" } }
  equal(bio.coding_density(joined, 100).minus, 20)
  fails(function() bio.coding_density(features, 60) end, "61..70 is outside of 1..60")
  fails(function() bio.coding_density(features, 0) end, "the length")
end)

case("spoilt input is an error with a sentence, or is read", function()
  check.spoil(function(input) bio.read_gff3(text(input)) end, { CANONICAL, "##gff-version 3\nchr%201\tp\tgene\t1\t9\t1e-5\t-\t.\tID=a%3B;Note=x,z\n##FASTA\n>a\nACGT\n" }, 1500)
end)

case("a genome of 543 379 bases", function()
  local genome = check.bases(check.random(7), 543379)
  local began = os.clock()
  local found = bio.orfs(genome, { table = 4, min = 90 })
  local took = os.clock() - began
  if took >= 0.5 then error(("took %.2f s"):format(took)) end
  equal(#found > 100, true)
end)

check.done()
