-- bio-utils: complements, translation, composition, codons, melting temperatures. Each value names its source.
local check = require "check"
local bio = require "bio.utils"
local case, equal, near, fails = check.case, check.equal, check.near, check.fails

case("the rock's other name is the same module", function() equal(require "bio_utils" == bio, true) end)

case("complements", function()
  -- Biopython Tutorial, "Nucleotide sequences and (reverse) complements".
  equal(bio.complement "GATCGATGGGCCTATATAGGATCGAAAATCGC", "CTAGCTACCCGGATATATCCTAGCTTTTAGCG")
  equal(bio.reverse_complement "GATCGATGGGCCTATATAGGATCGAAAATCGC", "GCGATTTTCGATCCTATATAGGCCCATCGATC")
  -- Bio.Seq, documentation of complement and reverse_complement: case and ambiguity.
  equal(bio.complement "ACTGNAC-tggc", "TGACNTG-accg")
  equal(bio.reverse_complement "CCCCCgatAG-NR", "YN-CTatcGGGGG")
  equal(bio.reverse_complement("ACGTURYSWKMBDHVN", "dna"), "NBDHVKMWSRYAACGT")
end)

case("RNA stays RNA unless DNA is asked for", function()
  -- Bio.Seq, complement_rna.
  equal(bio.complement "CGAUU", "GCUAA")
  equal(bio.reverse_complement("ACGU", "dna"), "ACGT")
  equal(bio.reverse_complement("ACGT", "rna"), "ACGU")
  fails(function() bio.complement "ACGTU" end, "both T and U")
end)

case("what is no base is refused with its place", function()
  fails(function() bio.reverse_complement "ACGTX" end, "'X' at position 5")
  fails(function() bio.complement "AC\0GT" end, "byte 0 at position 3")
  fails(function() bio.gc(42) end, "a string is wanted")
  fails(function() bio.complement("A", "protein") end, "'dna' or 'rna'")
  equal({ bio.is_nucleotide "ACGN-" }, { true })
  equal({ bio.is_nucleotide("ACGN-", true) }, { false, 4 })
end)

case("transcription", function()
  -- Biopython Tutorial, "Transcription".
  equal(bio.transcribe "ATGGCCATTGTAATGGGCCGCTGAAAGGGTGCCCGATAG", "AUGGCCAUUGUAAUGGGCCGCUGAAAGGGUGCCCGAUAG")
  equal(bio.back_transcribe "AUGGCCAUUGUAAUGGGCCGCUGAAAGGGUGCCCGAUAG", "ATGGCCATTGTAATGGGCCGCTGAAAGGGTGCCCGATAG")
  equal(bio.transcribe "acgtT", "acguU")
end)

case("translation", function()
  -- Biopython Tutorial, "Translation".
  local dna = "ATGGCCATTGTAATGGGCCGCTGAAAGGGTGCCCGATAG"
  equal(bio.translate(dna), "MAIVMGR*KGAR*")
  equal(bio.translate(bio.transcribe(dna):lower()), "MAIVMGR*KGAR*")
  equal(bio.translate(dna, { to_stop = true }), "MAIVMGR")
  equal(bio.translate(dna, { stop = "@" }), "MAIVMGR@KGAR@")
  equal(bio.translate(dna, { stop = "%1" }), "MAIVMGR%1KGAR%1")
  equal({ bio.translate "ATGGC" }, { "M", 2 })
  equal({ bio.translate "" }, { "", 0 })
end)

case("a whole coding sequence", function()
  -- Biopython Tutorial, "Translation": the gene yaaX of E. coli K-12, which begins with GTG.
  local gene = "GTGAAAAAGATGCAATCTATCGTACTCGCACTTTCCCTGGTTCTGGTCGCTCCCATGGCAGCACAGGCTGCGGAAATTACGTTAGTCCCGTCAGTAAAATTACAGATAGGCGATCGTGATAATCGTGGCTATTACTGG"
    .. "GATGGAGGTCACTGGCGCGACCACGGCTGGTGGAAACAACATTATGAATGGCGAGGCAATCGCTGGCACCTACACGGACCGCCGCCACCGCCGCGCCACCATAAGAAAGCTCCTCATGATCATCACGGCGGTCATGGT"
    .. "CCAGGCAAACATCACCGCTAA"
  local protein = "KKMQSIVLALSLVLVAPMAAQAAEITLVPSVKLQIGDRDNRGYYWDGGHWRDHGWWKQHYEWRGNRWHLHGPPPPPRHHKKAPHDHHGGHGPGKHHR"
  equal(bio.translate(gene, { table = 11 }), "V" .. protein .. "*")
  equal(bio.translate(gene, { table = 11, cds = true }), "M" .. protein)
  fails(function() bio.translate(gene, { table = 1, cds = true }) end, "'GTG' is no start codon of genetic code 1")
  fails(function() bio.translate(gene:sub(1, -2), { table = 11, cds = true }) end, "divisible by three")
  fails(function() bio.translate(gene:sub(1, -4), { table = 11, cds = true }) end, "does not end with a stop codon")
  fails(function() bio.translate("ATGTAAGGGTAA", { cds = true }) end, "inside the coding sequence, at position 4")
end)

case("genetic codes", function()
  -- NCBI, gc.prt: start and stop codons of the tables 1, 4 and 11.
  local function names(set)
    local list = {}
    for codon in pairs(set) do list[#list + 1] = codon end
    table.sort(list)
    return table.concat(list, " ")
  end
  equal(names(bio.genetic_code(1).starts), "ATG CTG TTG")
  equal(names(bio.genetic_code(1).stops), "TAA TAG TGA")
  equal(names(bio.genetic_code(4).starts), "ATA ATC ATG ATT CTG GTG TTA TTG")
  equal(names(bio.genetic_code(4).stops), "TAA TAG")
  equal(names(bio.genetic_code(11).starts), "ATA ATC ATG ATT CTG GTG TTG")
  equal(names(bio.genetic_code(11).stops), "TAA TAG TGA")
  equal(bio.genetic_code(4).forward.TGA, "W")
  equal(bio.translate("TGATGG", { table = 4 }), "WW")
  fails(function() bio.genetic_code(2) end, "there are 1, 4 and 11")
  fails(function() bio.translate("ATG", { tabel = 1 }) end, "no option 'tabel'")
end)

case("ambiguous codons", function()
  -- Bio.Seq, documentation of translate: dual codings are B, Z, J, others X; ambiguous stop codons only if all readings stop.
  equal(bio.translate "RAYSARATHNNNTARTAN---", "BZIX*X-")
  equal(bio.translate "YTNMTN", "XX")
  equal(bio.translate "MTT", "J")
  fails(function() bio.translate "ATGA-C" end, "'A-C' at position 4 is not a codon")
  fails(function() bio.translate "AT\1" end, "'AT?' at position 1")
end)

case("GC content", function()
  -- Biopython Tutorial: 46.875 %. Bio.SeqUtils.gc_fraction, documentation.
  near(bio.gc "GATCGATGGGCCTATATAGGATCGAAAATCGC", 0.46875, 0)
  near(bio.gc "GGAUCUUCGGAUCU", 0.5, 0)
  near(bio.gc "ACTGSSSS", 0.75, 0)
  near(bio.gc("ACTGN", "ignore"), 0.4, 1e-12)
  near(bio.gc("ACTGN", "weighted"), 0.5, 1e-12)
  near(bio.gc("ACTGN", "remove"), 0.5, 1e-12)
  near(bio.gc("GDVV", "ignore"), 0.25, 1e-12)
  near(bio.gc("GDVV", "weighted"), 0.6667, 1e-4)
  near(bio.gc("GDVV"), 1, 0)
  equal(bio.gc "", 0)
  fails(function() bio.gc("A", "other") end, "'remove', 'ignore' or 'weighted'")
  -- Bio.SeqUtils.GC123: total 40, positions 50, 50, 0.
  equal({ bio.gc_by_position "ACTGTN" }, { 0.5, 0.5, 0, 0.4 })
end)

case("counts", function()
  equal(bio.count "GATTACAgattaca", { A = 6, C = 2, G = 2, T = 4 })
  equal(bio.count "", {})
end)

case("GC skew", function()
  -- From the definition, (G-C)/(G+C); windows as Bio.SeqUtils.GC_skew makes them.
  local skew = bio.gc_skew("GGGC" .. "AAAA" .. "CC", 4)
  equal(skew, { { start = 1, stop = 4, skew = 0.5 }, { start = 5, stop = 8, skew = 0 }, { start = 9, stop = 10, skew = -1 } })
  equal(#bio.gc_skew(("ACGT"):rep(50), 100, 10), 20)
  equal(bio.gc_skew("GGCC", 2, 1)[2], { start = 2, stop = 3, skew = 0 })
  fails(function() bio.gc_skew("ACGT", 0) end, "whole number")
  -- By hand: C goes down, G up; the origin is at the minimum.
  equal(bio.cumulative_gc_skew("CCAGGGT", 3), {
    minimum = -2, minimum_at = 2, maximum = 1, maximum_at = 6, last = 1,
    points = { { at = 3, sum = -2 }, { at = 6, sum = 1 }, { at = 7, sum = 1 } },
  })
end)

case("codon usage", function()
  -- Counted by hand.
  local usage = bio.codon_usage { "ATGTTTTTCTTTNNNTAA", "auguu" }
  equal({ usage.total, usage.others, usage.left, usage.counts.TTT, usage.counts.ATG, usage.counts.CCC }, { 6, 1, 2, 2, 2, 0 })
  local rows = bio.codon_table "TTTTTCTTT"
  equal(#rows, 64)
  for _, row in ipairs(rows) do
    if row.codon == "TTT" then
      near(row.fraction, 2 / 3, 1e-12)
      near(row.per_thousand, 2000 / 3, 1e-9)
    end
  end
end)

case("RSCU", function()
  -- Sharp and Li 1987: RSCU = observed / mean of the synonymous codons. Three of four leucine codons CTG of six kinds: 4.5.
  local values = bio.rscu "CTGCTGCTGTTAATGTTTTTC"
  near(values.CTG, 4.5, 1e-12)
  near(values.TTA, 1.5, 1e-12)
  near(values.CTC, 0, 0)
  near(values.ATG, 1, 0)
  near(values.TTT, 1, 0)
  equal(values.GGG, nil)
  equal(values.TAA, nil)
  -- With code 4 TGA is one of two codons of tryptophan.
  near(bio.rscu("TGATGATGATGG", { table = 4 }).TGA, 1.5, 1e-12)
end)

local PRIMER = "CGTTCCAAAGATGTGGGCATGAGCTTAC"

case("melting temperature by rules and formulas", function()
  -- Bio.SeqUtils.MeltingTemp, documentation: Tm_Wallace 84.00, Tm_GC 58.97.
  equal(bio.tm_wallace(PRIMER), 84)
  near(bio.tm_gc(PRIMER), 58.97, 0.005)
  -- By hand: 69.3 + 0.41 * 50 - 650 / 28.
  near(bio.tm_gc(PRIMER, { formula = "marmur-doty" }), 66.586, 0.001)
  fails(function() bio.tm_gc(PRIMER, { formula = "best" }) end, "no formula 'best'")
  fails(function() bio.tm_wallace "ACGN" end, "'N' at position 4")
  fails(function() bio.tm_wallace "" end, "empty")
end)

case("melting temperature by nearest neighbours", function()
  -- Bio.SeqUtils.MeltingTemp, documentation of Tm_NN: the parameters of 1997/1998, all salt corrections, ions.
  near((bio.tm_nn(PRIMER)), 60.32, 0.005)
  for method, wanted in ipairs { 54.27, 54.02, 59.60, 60.64, 60.32, 59.78, 59.78 } do
    near((bio.tm_nn(PRIMER, { salt = method })), wanted, 0.005)
  end
  near((bio.tm_nn(PRIMER, { Na = 50, Tris = 10 })), 60.79, 0.005)
  near((bio.tm_nn(PRIMER, { Na = 50, Tris = 10, Mg = 1.5 })), 67.39, 0.005)
  near((bio.tm_nn(PRIMER, { Na = 50, Tris = 10, Mg = 1.5, salt = 7 })), 66.81, 0.005)
  near((bio.tm_nn(PRIMER, { Na = 50, Tris = 10, Mg = 1.5, dNTPs = 0.6, salt = 7 })), 66.04, 0.005)
  fails(function() bio.tm_nn "A" end, "two bases")
  fails(function() bio.tm_nn(PRIMER, { Na = -1 }) end, "concentration in mM")
  fails(function() bio.tm_nn(PRIMER, { Na = 0 }) end, "no ions")
  fails(function() bio.tm_nn(PRIMER, { strand = 1, template = 10 }) end, "more than half")
end)

case("enthalpy and entropy", function()
  -- SantaLucia 1998, figure 1: the duplex CGTTGA has a free energy of -5.35 kcal/mol at 37 degrees. Table 2 summed by hand: CG GT TT TG GA
  -- and both ends.
  local _, h, s = bio.tm_nn("CGTTGA", { salt = 0 })
  near(h - 310.15 * s / 1000, -5.35, 0.1)
  near(h, -10.6 - 8.4 - 7.9 - 8.5 - 8.2 + 0.1 + 2.3, 1e-9)
  near(s, -27.2 - 22.4 - 22.2 - 22.7 - 22.2 - 2.8 + 4.1, 1e-9)
  -- A sequence that is its own partner: symmetry, and all of the strand counts.
  local _, _, own = bio.tm_nn("ACGT", { salt = 0 })
  local _, _, other = bio.tm_nn("ACGT", { salt = 0, self_complementary = false })
  near(own - other, -1.4, 1e-9)
end)

case("salt corrections", function()
  -- Bio.SeqUtils.MeltingTemp.salt_correction, documentation.
  near(bio.salt_correction(1, nil, { Na = 50 }), -21.60, 0.005)
  near(bio.salt_correction(2, nil, { Na = 50 }), -21.85, 0.005)
  near(bio.salt_correction(2, nil, { Na = 100, Tris = 20 }), -16.45, 0.005)
  near(bio.salt_correction(2, nil, { Na = 100, Tris = 20, Mg = 1.5 }), -10.99, 0.005)
  fails(function() bio.salt_correction(8, "ACGT", { Na = 50 }) end, "1 to 7")
end)

case("a genome of 543 379 bases takes less than half a second each", function()
  -- The length of JCVI-syn3A (GenBank CP016816). Processor time, so that a busy machine does not matter.
  local genome = check.bases(check.random(7), 543379)
  for name, work in pairs {
    gc = function() return bio.gc(genome) end,
    reverse = function() return bio.reverse_complement(genome) end,
    translate = function() return bio.translate(genome, { table = 4 }) end,
    skew = function() return bio.gc_skew(genome, 1000) end,
    cumulative = function() return bio.cumulative_gc_skew(genome) end,
    usage = function() return bio.codon_usage(genome) end,
  } do
    local began = os.clock()
    work()
    local took = os.clock() - began
    if took >= 0.5 then error(("%s took %.2f s"):format(name, took)) end
  end
  equal(bio.reverse_complement(bio.reverse_complement(genome)), genome)
end)

check.done()
