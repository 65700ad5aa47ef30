-- sequence-parser: GenBank and locations. Each value names its source.
local check = require "check"
local bio = require "bio.sequences"
local case, equal, fails, all = check.case, check.equal, check.fails, check.all

-- A record with what records have. Biopython 1.88 (SeqIO.read(.., "genbank")) reads the same features, places and qualifiers from it.
local RECORD = [[
LOCUS       PTEST                    120 bp    DNA     circular BCT 15-MAR-2021
DEFINITION  Testus exemplaris strain 7 plasmid pTEST, which has a title that goes
            over two lines.
ACCESSION   TS_000001
VERSION     TS_000001.2
DBLINK      BioProject: PRJNA1
KEYWORDS    RefSeq.
SOURCE      Testus exemplaris
  ORGANISM  Testus exemplaris
            Bacteria; Testobacteria; Testales;
            Testaceae; Testus.
REFERENCE   1  (bases 1 to 120)
  AUTHORS   Doe,J. and Roe,R.
  TITLE     A plasmid that
            nobody has
  JOURNAL   Unpublished
   PUBMED   12345678
COMMENT     First line.
            Second line.
FEATURES             Location/Qualifiers
     source          1..120
                     /organism="Testus exemplaris"
                     /mol_type="genomic DNA"
                     /plasmid="pTEST"
     gene            complement(join(61..80,<91..100))
                     /gene="abcD"
                     /pseudo
     CDS             join(10..18,
                     30..38)
                     /gene="xyzA"
                     /codon_start=1
                     /transl_table=11
                     /note="says ""yes"" and goes on
                     /in the next line"
                     /db_xref="GI:1"
                     /db_xref="GeneID:2"
                     /translation="MKAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
                     KW"
ORIGIN
        1 acgtacgtaa tgaaagcgcc gttttttttg cttggtaaac ccgggaaatt tcccgggatc
       61 ttacgtacgt acgtacgtac gggggggggg aaaaaccccc acgtacgtac gtttaaaccc
//
]]

local function one(text) return all(bio.genbank(bio.text(text, "x.gb")))[1] end

case("the header", function()
  local record = one(RECORD)
  equal({ record.name, record.length, record.unit, record.molecule, record.topology, record.division, record.date },
    { "PTEST", 120, "bp", "DNA", "circular", "BCT", "15-MAR-2021" })
  equal(record.description, "Testus exemplaris strain 7 plasmid pTEST, which has a title that goes over two lines")
  equal({ record.id, record.accession, record.version, record.dblink, record.keywords }, { "TS_000001.2", "TS_000001", "TS_000001.2", "BioProject: PRJNA1", "RefSeq." })
  equal({ record.source, record.organism }, { "Testus exemplaris", "Testus exemplaris" })
  equal(record.taxonomy, { "Bacteria", "Testobacteria", "Testales", "Testaceae", "Testus" })
  equal(record.references, { { number = 1, bases = "bases 1 to 120", authors = "Doe,J. and Roe,R.", title = "A plasmid that nobody has", journal = "Unpublished", pubmed = "12345678" } })
  equal(record.comment, "First line.\nSecond line.")
  equal(#record.seq, 120)
  equal(record.seq:sub(1, 12), "ACGTACGTAATG")
end)

case("features and qualifiers", function()
  local record = one(RECORD)
  equal(#record.features, 3)
  local gene, cds = record.features[2], record.features[3]
  equal({ gene.key, gene.gene, gene.pseudo, gene.location.strand, gene.location.partial, gene.location.start, gene.location.stop }, { "gene", "abcD", true, -1, true, 61, 100 })
  equal({ cds.codon_start, cds.note, cds.db_xref }, { "1", 'says "yes" and goes on /in the next line', "GI:1" })
  local references = {}
  for _, qualifier in ipairs(cds.qualifiers) do
    if qualifier.name == "db_xref" then references[#references + 1] = qualifier.value end
  end
  equal(references, { "GI:1", "GeneID:2" })
  equal(cds.translation, "MK" .. ("A"):rep(41) .. "KW")
  equal(bio.extract(record.seq, cds), "ATGAAAGCG" .. "GCTTGGTAA")
  equal(bio.extract(record.seq, gene), "GGGGGTTTTT" .. "GTACGTACGTACGTACGTAA")
end)

case("what is written is read again", function()
  local out = {}
  local first = one(RECORD)
  equal(bio.write_genbank(function(piece) out[#out + 1] = piece end, first), 1)
  local text = table.concat(out)
  equal(one(text), first)
  for line in text:gmatch("[^\n]+") do
    if #line > 80 then error("a line of more than 80 characters: " .. line) end
  end
end)

case("a feature over the origin", function()
  local wrapped = RECORD:gsub("61%.%.80,<91%.%.100", "111..10,61..70")
  local record = one(wrapped)
  equal(bio.extract(record.seq, record.features[2]), "ACGTACGTAA" .. "TTACGTACGT" .. "GGGTTTAAAC")
  local linear = wrapped:gsub("circular", "linear  ")
  fails(function() one(linear) end, "runs backwards, and the sequence is no circle")
  equal(#all(bio.genbank(bio.text(linear), { circular = true }))[1].features, 3)
end)

case("several records, and a header before them", function()
  local both = all(bio.genbank(bio.text("GBBCT1.SEQ          Genetic Sequence Data Bank\n\n" .. RECORD .. "\n" .. RECORD)))
  equal(#both, 2)
end)

case("locations", function()
  -- INSDC Feature Table Definition, section 3.4.3: its examples.
  local function parts(text)
    local list = {}
    for _, part in ipairs(bio.parse_location(text).parts) do
      list[#list + 1] = ("%s%s..%s%s%s"):format(part.accession and part.accession .. ":" or "", part.start, part.stop, part.strand < 0 and "-" or "+", part.between and "^" or "")
    end
    return table.concat(list, " ")
  end
  equal(parts "467", "467..467+")
  equal(parts "340..565", "340..565+")
  equal(parts "<345..500", "345..500+")
  equal(parts "<1..888", "1..888+")
  equal(parts "1..>888", "1..888+")
  equal(parts "102.110", "102..110+")
  equal(parts "123^124", "123..124+^")
  equal(parts "join(12..78,134..202)", "12..78+ 134..202+")
  equal(parts "complement(34..126)", "34..126-")
  equal(parts "complement(join(2691..4571,4918..5163))", "4918..5163- 2691..4571-")
  equal(parts "join(complement(4918..5163),complement(2691..4571))", "4918..5163- 2691..4571-")
  equal(parts "J00194.1:100..202", "J00194.1:100..202+")
  equal(parts "join(1..100,J00194.1:100..202)", "1..100+ J00194.1:100..202+")
  equal(bio.parse_location "join(1..3,complement(5..6))".strand, nil)
  equal(bio.extract("AACCGGTT", "join(1..2,complement(5..6))"), "AACC")
  -- Over the origin of a circle, as some programs write it.
  equal(bio.extract("AACCGGTT", bio.parse_location("7..2", 8)), "TTAA")
  equal(bio.extract("AACCGGTT", bio.parse_location("complement(7..2)", 8)), "TTAA")
  equal(bio.parse_location "one-of(5,3)..9".start, 3)
  equal(bio.extract("AACC", "join(1..2,X1:2..3)", function(name) return name == "X1" and "GTTG" end), "AATT")
end)

case("locations that are wrong", function()
  for text, says in pairs {
    ["1..2)"] = "')' is left over", ["join(1..2"] = "',' or ')' is wanted", ["foo(1..2)"] = "no operator 'foo'", ["5..2"] = "runs backwards",
    ["..5"] = "a position is wanted", [""] = "a position is wanted", ["1..99999999999999999"] = "more than 15 digits",
  } do
    fails(function() bio.parse_location(text) end, says)
  end
  fails(function() bio.parse_location(("complement("):rep(5000)) end, "nest too deeply")
  fails(function() bio.extract("ACGT", "3..9") end, "outside of the sequence")
  fails(function() bio.extract("ACGT", "X1:3..9") end, "the sequence of X1 is not here")
end)

case("GenBank that is wrong", function()
  local function bad(from, to, says) fails(function() one((RECORD:gsub(from, to, 1))) end, says) end
  bad("LOCUS +PTEST +120", "LOCUS       PTEST", "x.gb:1: a LOCUS line")
  bad("120 bp", "121 bp", "LOCUS says 121, there are 120")
  bad("       61 tt", "       62 tt", "x.gb:41: the position is 62 where 61 is wanted")
  bad("//\n$", "", "cut off in its sequence")
  bad("ORIGIN.*", "", "cut off in its features")
  bad('KW"', "KW", "x.gb:37: the value of /translation has no closing quote")
  bad("61%.%.80", "61..x", "x.gb:25: location 'complement(join(61..x")
  bad("acgtacgtaa", "acgt!cgtaa", "a character that is no base")
  fails(function() one ">a\nACGT\n" end, "there is no LOCUS line")
  equal(all(bio.genbank(bio.text "")), {})
end)

case("spoilt input is an error with a sentence, or is read", function()
  check.spoil(function(text)
    for record in bio.genbank(bio.text(text)) do
      for _, feature in ipairs(record.features) do pcall(bio.extract, record.seq, feature) end
    end
  end, { RECORD }, 1500)
  check.spoil(function(text) bio.parse_location(text) end, { "complement(join(12..78,<134..>202,J00194.1:(1.3)..4^5))" }, 2000)
end)

case("long values take no more than their length", function()
  local line = "                     " .. ("x "):rep(29) .. "\n"
  local text = RECORD:gsub('/note="says', '/note="' .. ("x "):rep(20) .. "\n" .. line:rep(20000) .. '                     says', 1)
  local began = os.clock()
  equal(#one(text).features, 3)
  local took = os.clock() - began
  if took > 1 then error(("took %.2f s"):format(took)) end
end)

check.done()
