-- phylo-tree: Newick, distances, clustering, comparison. Each value names its source.
local check = require "check"
local bio = require "bio.phylo"
local case, equal, near, fails, all = check.case, check.equal, check.near, check.fails, check.all

case("the rock's other name is the same module", function() equal(require "phylo_tree" == bio, true) end)

case("Newick", function()
  -- Wikipedia, "Newick format": its examples, written as they were read.
  for _, text in ipairs {
    "(,,(,));", "(A,B,(C,D));", "(A,B,(C,D)E)F;", "(:0.1,:0.2,(:0.3,:0.4):0.5);", "(:0.1,:0.2,(:0.3,:0.4):0.5):0;", "(A:0.1,B:0.2,(C:0.3,D:0.4):0.5);",
    "(A:0.1,B:0.2,(C:0.3,D:0.4)E:0.5)F;", "((B:0.2,(C:0.3,D:0.4)E:0.5)F:0.1)A;",
  } do
    equal(bio.write(bio.parse(text)), text)
  end
  local tree = bio.parse "(A:0.1,B:0.2,(C:0.3,D:0.4)E:0.5)F;"
  equal({ tree.name, #tree.children, tree.children[3].name, tree.children[3].children[2].length }, { "F", 3, "E", 0.4 })
end)

case("names, supports, comments", function()
  local tree = bio.parse "('it''s (a) leaf':1e-2,B_b[&&NHX:S=x[y]]:2,(C,D)95:3,(E,F)'95')root ;"
  equal(tree.children[1], { name = "it's (a) leaf", length = 0.01, children = {} })
  equal(tree.children[2], { name = "B_b", length = 2, comment = "&&NHX:S=x[y]", children = {} })
  equal({ tree.children[3].support, tree.children[3].name, tree.children[4].support, tree.children[4].name }, { 95, nil, nil, "95" })
  equal(bio.write(tree), "('it''s (a) leaf':0.01,B_b:2[&&NHX:S=x[y]],(C,D)95:3,(E,F)'95')root;")
  equal(bio.write(tree, { lengths = false, supports = false, comments = false }), "('it''s (a) leaf',B_b,(C,D),(E,F)'95')root;")
  equal(bio.parse("(a_b,'c_d');", { underscores = "blank" }).children[1].name, "a b")
  equal(bio.parse("(a_b,'c_d');", { underscores = "blank" }).children[2].name, "c_d")
  equal(bio.parse "(1,2);".children[1].name, "1")
end)

case("several trees", function()
  equal(#all(bio.trees "(A,B);\n[between] (C,D); \n")[2].children, 2)
  equal(#all(bio.trees ""), 0)
  equal(#bio.parse("\239\187\191(A,B);").children, 2)
end)

case("Newick that is wrong", function()
  local function bad(text, says) fails(function() bio.parse(text) end, says) end
  bad("", "there is no tree")
  bad("(A,B)", "newick:1:6: a tree ends with ';'")
  bad("((A,B);", "1 brackets are not closed")
  bad("(A,\nB));", "newick:2:3: a closing bracket without an opening one")
  bad("A,B;", "a comma outside of all brackets")
  bad("(A,'B);", "newick:1:4: a quoted name that is not closed")
  bad("(A,[B);", "newick:1:4: a comment that is not closed")
  bad("(A:x,B);", "newick:1:4: a branch length is wanted")
  bad("(A B);", "unexpected 'B'")
  bad("(A,B); (C,D);", "something follows the tree")
  bad("(A,B", "the tree is cut off")
  fails(function() bio.parse(5) end, "a string is wanted")
end)

case("trees may be deep", function()
  local depth = 50000
  local text = ("("):rep(depth) .. "x" .. (",y)"):rep(depth) .. ";"
  local tree = bio.parse(text)
  equal(bio.write(tree), text)
  equal(#bio.leaves(tree), depth + 1)
end)

case("lengths and distances in a tree", function()
  local tree = bio.parse "((A:1,B:2):3,(C:4,D:5):6);"
  equal(bio.total_length(tree), 21)
  equal(bio.root_distances(tree), { A = 4, B = 5, C = 10, D = 11 })
  local distances = bio.leaf_distances(tree)
  equal(distances.names, { "A", "B", "C", "D" })
  equal(distances.matrix[1], { 0, 3, 14, 15 })
  fails(function() bio.leaf_distances(bio.parse "(A,A);") end, "two leaves 'A'")
end)

case("distances of sequences", function()
  -- Z. Yang, Computational Molecular Evolution (2006), 1.2: the 12S rRNA of human and orang-utan, 948 sites, 84 transitions and 6
  -- transversions: JC69 0.1015, K80 0.1046.
  local a = ("A"):rep(948)
  local b = ("G"):rep(84) .. ("C"):rep(6) .. ("A"):rep(858)
  equal({ bio.differences(a, b) }, { 948, 84, 6 })
  near(bio.distance(a, b, "p"), 0.0949, 5e-5)
  near(bio.distance(a, b, "jc69"), 0.1015, 5e-5)
  near(bio.distance(a, b, "k2p"), 0.1046, 5e-5)
  -- Gaps and ambiguous codes leave a site out; U is T.
  equal({ bio.differences("ACGTN-au", "ACGCAAGT") }, { 6, 2, 0 })
  equal(bio.distance("ACGT", "ACGT", "jc69"), 0)
  equal(bio.distance("AAAA", "CCCC", "jc69"), nil)
  equal(bio.distance("NN", "AA"), nil)
  fails(function() bio.distance("A", "AC") end, "aligned sequences have one length")
  fails(function() bio.distance("A", "A", "f84") end, "'p', 'jc69' or 'k2p'")
  local distances = bio.distance_matrix({ { id = "x", seq = "AAAA" }, { id = "y", seq = "AAAC" }, { id = "z", seq = "AACC" } })
  equal(distances, { names = { "x", "y", "z" }, matrix = { { 0, 0.25, 0.5 }, { 0.25, 0, 0.25 }, { 0.5, 0.25, 0 } } })
  fails(function() bio.distance_matrix({ { id = "x", seq = "AAAA" }, { id = "y", seq = "CCCC" } }, "k2p") end, "x and y have no distance by the model k2p")
  fails(function() bio.distance_matrix { { id = "x", seq = "A" }, { id = "x", seq = "A" } } end, "two records 'x'")
end)

case("UPGMA", function()
  -- Wikipedia, "UPGMA", working example: five bacterial 5S rRNA sequences.
  local distances = { names = { "a", "b", "c", "d", "e" }, matrix = { { 0 }, { 17, 0 }, { 21, 30, 0 }, { 31, 34, 28, 0 }, { 23, 21, 39, 43, 0 } } }
  local tree = bio.upgma(distances)
  equal(bio.write(tree), "(((a:8.5,b:8.5):2.5,e:11):5.5,(c:14,d:14):2.5);")
  for _, length in pairs(bio.root_distances(tree)) do equal(length, 16.5) end
  equal(bio.write(bio.upgma { names = { "x" }, matrix = { { 0 } } }), "x;")
end)

case("neighbour joining", function()
  -- Wikipedia, "Neighbor joining", example of an additive matrix: a-u 2, b-u 3, c-v 4, u-v 3, d 2, e 1, v-w 2.
  local distances = { names = { "a", "b", "c", "d", "e" }, matrix = { { 0 }, { 5, 0 }, { 9, 10, 0 }, { 9, 10, 8, 0 }, { 8, 9, 7, 3, 0 } } }
  local tree = bio.neighbour_joining(distances)
  local function length(name)
    for _, leaf in ipairs(bio.leaves(tree)) do
      if leaf.name == name then return leaf.length end
    end
  end
  equal({ length "a", length "b", length "c", length "d", length "e" }, { 2, 3, 4, 2, 1 })
  equal(bio.total_length(tree), 2 + 3 + 4 + 3 + 2 + 2 + 1)
  equal((bio.robinson_foulds(tree, bio.parse "((a,b),c,(d,e));")), 0)
  equal(bio.neighbor_joining, bio.neighbour_joining)
  equal(bio.write(bio.neighbour_joining { names = { "x", "y" }, matrix = { { 0, 3 }, { 3, 0 } } }), "(x:1.5,y:1.5);")
end)

case("neighbour joining finds every additive tree again", function()
  -- Saitou and Nei 1987; Studier and Keppler 1988: from additive distances the tree and its lengths come out exactly.
  local random = check.random(17)
  for count = 4, 25 do
    local nodes = {}
    for at = 1, count do nodes[at] = { name = "t" .. at, length = random(100), children = {} } end
    while #nodes > 3 do
      local a = table.remove(nodes, random(#nodes))
      local b = table.remove(nodes, random(#nodes))
      nodes[#nodes + 1] = { length = random(100), children = { a, b } }
    end
    local tree = { children = nodes }
    local found = bio.neighbour_joining(bio.leaf_distances(tree))
    equal((bio.robinson_foulds(tree, found)), 0)
    near(bio.total_length(found), bio.total_length(tree), 1e-6)
    local wanted, got = bio.leaf_distances(tree), bio.leaf_distances(found)
    local index = {}
    for at, name in ipairs(got.names) do index[name] = at end
    for i, one in ipairs(wanted.names) do
      for j, other in ipairs(wanted.names) do near(got.matrix[index[one]][index[other]], wanted.matrix[i][j], 1e-6) end
    end
  end
end)

case("matrices that are wrong", function()
  fails(function() bio.upgma { names = { "a", "b" }, matrix = { { 0, 1 }, { 2, 0 } } } end, "not symmetric at b and a")
  fails(function() bio.upgma { names = { "a", "a" }, matrix = { { 0, 1 }, { 1, 0 } } } end, "the name 'a' occurs twice")
  fails(function() bio.neighbour_joining { names = { "a", "b" }, matrix = { { 0, -1 }, { -1, 0 } } } end, "the distance of a and b is -1")
  fails(function() bio.upgma { names = { "a", "b" }, matrix = { { 0 }, {} } } end, "the distance of a and b is nil")
  fails(function() bio.upgma { names = {}, matrix = {} } end, "there are no names")
  fails(function() bio.upgma {} end, "is wanted")
end)

case("Robinson-Foulds", function()
  -- From the definition (Robinson and Foulds 1981): splits that are in one tree only; two binary trees of n leaves differ by 2(n - 3) at
  -- most.
  local function distance(a, b, options) return { bio.robinson_foulds(bio.parse(a), bio.parse(b), options) } end
  equal(distance("((A,B),(C,D));", "((A,C),(B,D));"), { 2, 1, 0 })
  equal(distance("((A,B),(C,D));", "((D,C),(B,A));"), { 0, 0, 1 })
  -- Unrooted, the place of the root does not matter.
  equal(distance("((A,B),(C,D));", "(A,(B,(C,D)));"), { 0, 0, 1 })
  equal(distance("((A,B),(C,D));", "(A,(B,(C,D)));", { rooted = true }), { 2, 0.5, 1 })
  equal(distance("((A,B),C,(D,E));", "((A,C),B,(D,E));"), { 2, 0.5, 1 })
  equal(distance("(A,B,C,D,E);", "((A,B),C,(D,E));"), { 2, 1, 0 })
  equal(distance("((((A,B))),(C,D));", "((A,B),C,D);"), { 0, 0, 1 })
  equal(distance("A;", "A;"), { 0, 0, 0 })
  fails(function() distance("(A,B,C);", "(A,B,D);") end, "the second tree has no leaf 'C'")
  fails(function() distance("(A,B);", "(A,B,D);") end, "the first tree has no leaf 'D'")
  fails(function() distance("(A,A);", "(A,A);") end, "two leaves 'A'")
end)

-- The same by the definition, slowly: sets of leaf names, each split named by the side without the first leaf.
local function slowly(tree)
  local names = {}
  for _, leaf in ipairs(bio.leaves(tree)) do names[#names + 1] = leaf.name end
  table.sort(names)
  local splits = {}
  for node in bio.nodes(tree) do
    local inside, count = {}, 0
    for _, leaf in ipairs(bio.leaves(node)) do inside[leaf.name], count = true, count + 1 end
    local flip = inside[names[1]] or false
    local side = {}
    for _, name in ipairs(names) do
      if (inside[name] or false) ~= flip then side[#side + 1] = name end
    end
    if #side > 1 and #side < #names - 1 then splits[table.concat(side, " ")] = true end
  end
  return splits
end

case("Robinson-Foulds as the definition has it", function()
  local random = check.random(23)
  local function tree_of(count)
    local nodes = {}
    for at = 1, count do nodes[at] = { name = "t" .. at, children = {} } end
    while #nodes > 1 do
      local children = {}
      for _ = 1, math.min(#nodes, random(3) + (random(2) == 1 and 1 or 0)) do children[#children + 1] = table.remove(nodes, random(#nodes)) end
      nodes[#nodes + 1] = { children = children }
    end
    return nodes[1]
  end
  for round = 1, 120 do
    local count = 3 + round % 12
    local a, b = tree_of(count), tree_of(count)
    local x, y, wanted = slowly(a), slowly(b), 0
    for split in pairs(x) do wanted = wanted + (y[split] and 0 or 1) end
    for split in pairs(y) do wanted = wanted + (x[split] and 0 or 1) end
    equal((bio.robinson_foulds(a, b)), wanted)
    equal((bio.robinson_foulds(a, a)), 0)
  end
end)

case("spoilt input is an error with a sentence, or is read", function()
  check.spoil(function(text)
    for tree in bio.trees(text) do bio.write(tree) end
  end, { "((A:0.1,'B b':2e-3[c]):1,(C,D)95:3[&&NHX:a=b],E_e)root;", "(,,(,));(A,(B,(C,D)E)F)G;" }, 3000)
end)

case("a hundred leaves are quick", function()
  local random = check.random(29)
  local names, matrix = {}, {}
  for i = 1, 100 do
    names[i], matrix[i] = "t" .. i, {}
    for j = 1, i do matrix[i][j] = i == j and 0 or random(1000) end
  end
  local began = os.clock()
  equal(#bio.leaves(bio.neighbour_joining({ names = names, matrix = matrix }, { negative = "zero" })), 100)
  equal(#bio.leaves(bio.upgma { names = names, matrix = matrix }), 100)
  local took = os.clock() - began
  if took > 1 then error(("took %.2f s"):format(took)) end
end)

check.done()
