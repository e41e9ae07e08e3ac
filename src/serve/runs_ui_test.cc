#include "serve/runs_ui.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/file.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/error.h"
#include "base/file.h"
#include "serve/fixture_test.h"

namespace wels {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::HasSubstr;

// Run folders under a folder of their own.
struct RunsTest : testing::Test {
  RunsTest() : root(fs::temp_directory_path() / ("wels_runs_" + std::to_string(::getpid()))) {
    fs::remove_all(root);
    fs::create_directories(root);
  }
  ~RunsTest() override { fs::remove_all(root); }

  std::string run(const std::string& name, int lines) {
    fs::path folder = root / name;
    fs::create_directories(folder);
    add_lines(folder.string(), 1, lines);
    write_file_atomic((folder / "run.json").string(),
                      R"({"name":"x","status":"running","started":1,"updated":2,"total_steps":60,)"
                      R"("sections":[{"title":"Recipe","rows":[["stage","reinforcement learning"],)"
                      R"(["seed","7"]]},{"title":"Model","rows":[["width","32"]]}]})");
    return folder.string();
  }
  void add_lines(const std::string& folder, int from, int to) {
    std::ofstream f(folder + "/metrics.jsonl", std::ios::app);
    for (int i = from; i <= to; ++i) {
      f << "{\"step\":" << i << ",\"loss\":" << 10 - i << ",\"tokens\":" << 100 * i;
      if (i % 2 == 0) f << ",\"layers\":[1,2],\"load\":[[1,0.5],[0,2]],\"bias\":[[0,1],[1,0]]";
      if (i % 3 == 0) f << ",\"sample\":\"text " << i << "\"";
      f << "}\n";
    }
  }
  json get(RunsUi& ui, const std::string& path) { return client(ui).get(path).json(); }
  static int port_of(RunsUi& ui) {
    std::string url = ui.url();
    return std::stoi(url.substr(url.rfind(':') + 1));
  }
  RawClient client(RunsUi& ui) { return RawClient(port_of(ui)); }

  fs::path root;
};

TEST_F(RunsTest, RunsAreFoundBelowTheFolder) {
  run("a", 5);
  run("r1/05-rl", 3);
  fs::create_directories(root / "empty");
  RunsUi ui({root.string()}, 0, true);
  json runs = get(ui, "/ui/runs");
  ASSERT_EQ(runs.size(), 2u);
  const json& a = runs[0];
  EXPECT_EQ(a["name"], "a");
  EXPECT_EQ(a["stage"], "reinforcement learning");
  EXPECT_EQ(a["model"]["width"], "32");
  EXPECT_EQ(a["step"], 5);
  EXPECT_EQ(a["steps"], 60);
  EXPECT_EQ(a["tokens"], 500);
  EXPECT_EQ(a["running"], false);
  EXPECT_EQ(a["status"], "stopped");  // it says running, but nobody holds it
  EXPECT_EQ(a["seed"], 7);
  run("late", 1);
  EXPECT_EQ(get(ui, "/ui/runs").size(), 3u);
  EXPECT_EQ(get(ui, "/ui/config.json")["mode"], "training");
}

TEST_F(RunsTest, TwoFoldersOfOneNameHaveTwoIds) {
  std::string one = run("x/mine", 1), two = run("y/mine", 2);
  RunsUi ui({one, two}, 0, true);
  json runs = get(ui, "/ui/runs");
  ASSERT_EQ(runs.size(), 2u);
  EXPECT_EQ(runs[0]["id"], "mine");
  EXPECT_EQ(runs[1]["id"], "mine-2");
  EXPECT_EQ(runs[0]["name"], "x/mine");
  EXPECT_EQ(runs[1]["name"], "y/mine");
  EXPECT_EQ(runs[1]["step"], 2);
}

TEST_F(RunsTest, LinesComeFromWhereTheClientIs) {
  std::string folder = run("a", 5);
  RunsUi ui({folder}, 0, true);
  RawClient c = client(ui);
  auto all = c.get("/ui/runs/a/metrics");
  EXPECT_THAT(all.head, HasSubstr("application/x-ndjson"));
  EXPECT_EQ(all.body, read_file(folder + "/metrics.jsonl"));
  EXPECT_EQ(json::parse(c.get("/ui/runs/a/metrics?after=4").body)["step"], 5);
  EXPECT_EQ(c.get("/ui/runs/a/metrics?after=99").body, "");
  EXPECT_EQ(c.get("/ui/runs/a/metrics?after=-1").status, 400);
  EXPECT_EQ(c.get("/ui/runs/a/metrics?after=x").status, 400);
  // A line that is still being written is not one.
  std::ofstream(folder + "/metrics.jsonl", std::ios::app) << "{\"step\":6";
  EXPECT_EQ(c.get("/ui/runs/a/metrics?after=5").body, "");
}

TEST_F(RunsTest, LongFilesAndLinesComeWhole) {
  std::string folder = run("a", 0), want;
  for (int i = 1; i <= 3; ++i)
    want +=
        "{\"step\":" + std::to_string(i) + ",\"sample\":\"" + std::string(700000, 'x') + "\"}\n";
  for (int i = 4; i < 20000; ++i) want += "{\"step\":" + std::to_string(i) + "}\n";
  std::ofstream(folder + "/metrics.jsonl") << want;
  RunsUi ui({folder}, 0, true);
  EXPECT_EQ(client(ui).get("/ui/runs/a/metrics").body, want);
  std::string rest = client(ui).get("/ui/runs/a/metrics?after=2").body;
  EXPECT_EQ(rest, want.substr(want.find("{\"step\":3,")));
  EXPECT_EQ(get(ui, "/ui/runs")[0]["step"], 19999);
  EXPECT_EQ(get(ui, "/ui/runs/a/samples").size(), 3u);
}

// What a head says of a name.
std::string told(const std::string& head, const std::string& name) {
  size_t at = head.find("\r\n" + name + ": ");
  if (at == std::string::npos) return "";
  at += name.size() + 4;
  return head.substr(at, head.find("\r\n", at) - at);
}

TEST_F(RunsTest, APageAsksForWhatIsNewSinceItAskedLast) {
  std::string folder = run("a", 3);
  RunsUi ui({folder}, 0, true);
  RawClient c = client(ui);
  const std::string ask = "/ui/runs/a/metrics?points=1500";
  auto first = c.get(ask);
  EXPECT_EQ(first.body, read_file(folder + "/metrics.jsonl"));
  EXPECT_EQ(told(first.head, "Wels-Reset"), "0");
  EXPECT_EQ(told(first.head, "Wels-Running"), "0");
  std::string next = told(first.head, "Wels-Next");
  EXPECT_EQ(c.get(ask + "&after=" + next).body, "");
  add_lines(folder, 4, 4);
  std::ofstream(folder + "/metrics.jsonl", std::ios::app) << "{\"step\":5";
  FolderLock lock(folder);
  auto more = c.get(ask + "&after=" + next);
  EXPECT_EQ(json::parse(more.body)["step"], 4);
  EXPECT_EQ(told(more.head, "Wels-Running"), "1");
  EXPECT_EQ(told(more.head, "Wels-Next"),
            told(c.get(ask + "&after=" + told(more.head, "Wels-Next")).head, "Wels-Next"));
  for (const char* bad : {"points=0", "points=x", "points=1500&after=3", "points=1500&after=3-"})
    EXPECT_EQ(c.get(std::string("/ui/runs/a/metrics?") + bad).status, 400) << bad;
}

TEST_F(RunsTest, AFileThatIsNoLongerTheSameComesWhole) {
  std::string folder = run("a", 300);
  RunsUi ui({folder}, 0, true);
  RawClient c = client(ui);
  const std::string ask = "/ui/runs/a/metrics?points=1500";
  std::string next = told(c.get(ask).head, "Wels-Next");
  // Shorter (cut for a resume, or begun anew), and then longer than before, with other lines.
  for (int lines : {2, 400}) {
    std::ofstream f(folder + "/metrics.jsonl", std::ios::trunc);
    for (int i = 1; i <= lines; ++i) f << "{\"step\":" << i << ",\"loss\":" << i << ".25}\n";
    f.close();
    auto again = c.get(ask + "&after=" + next);
    EXPECT_EQ(told(again.head, "Wels-Reset"), "1") << lines;
    EXPECT_EQ(again.body, read_file(folder + "/metrics.jsonl")) << lines;
    EXPECT_EQ(told(c.get(ask + "&after=" + told(again.head, "Wels-Next")).head, "Wels-Reset"), "0");
  }
}

TEST_F(RunsTest, AMillionLinesAreThinnedOut) {
  std::string folder = run("a", 0);
  {
    std::ofstream f(folder + "/metrics.jsonl");
    for (int i = 1; i <= 100'000; ++i)
      f << "{\"step\":" << i << ",\"loss\":2.5,\"load\":[[1,0.5],[0,2]]}\n";
  }
  RunsUi ui({folder}, 0, true);
  auto r = client(ui).get("/ui/runs/a/metrics?points=1500");
  EXPECT_LT(r.body.size(), 300'000u);
  std::istringstream lines(r.body);
  int losses = 0, last = 0;
  for (std::string line; std::getline(lines, line);) {
    if (line.empty()) continue;
    json j = json::parse(line);
    EXPECT_GT(j["step"], last);
    last = j["step"];
    if (!j.contains("loss")) continue;
    EXPECT_EQ(j["loss"], 2.5);
    ++losses;
  }
  EXPECT_EQ(last, 100'000);
  EXPECT_GE(losses, 700);
  EXPECT_LE(losses, 1501);
  // Behind it lines come as they are.
  add_lines(folder, 100'001, 100'001);
  auto more = client(ui).get("/ui/runs/a/metrics?points=1500&after=" + told(r.head, "Wels-Next"));
  EXPECT_EQ(json::parse(more.body)["step"], 100'001);
}

TEST_F(RunsTest, ADamagedLastLineIsNotTheLast) {
  std::string folder = run("a", 4);
  std::ofstream(folder + "/metrics.jsonl", std::ios::app) << "{\"step\":5,\"lo\n";
  RunsUi ui({folder}, 0, true);
  EXPECT_EQ(get(ui, "/ui/runs")[0]["step"], 4);
}

TEST_F(RunsTest, LinesBehindALongOneAreNotLost) {
  std::string folder = run("a", 0), want;
  for (int i = 1; i <= 40; ++i)
    want += "{\"step\":" + std::to_string(i) + ",\"sample\":\"" +
            std::string(i == 1 ? 300'000 : 10, 'x') + "\"}\n";
  std::ofstream(folder + "/metrics.jsonl") << want;
  RunsUi ui({folder}, 0, true);
  for (int after : {1, 2, 39})
    EXPECT_EQ(client(ui).get("/ui/runs/a/metrics?after=" + std::to_string(after)).body,
              want.substr(want.find("{\"step\":" + std::to_string(after + 1) + ",")));
}

TEST_F(RunsTest, AnOddRunDoesNotHideTheOthers) {
  run("a", 3);
  std::string odd = run("b", 1);
  for (const char* info :
       {R"({"status":1})", R"({"sections":[{"title":1,"rows":[]},{"title":"Recipe","rows":3}]})",
        R"({"total_steps":"x","sections":[{"title":"Recipe","rows":[["stage",1],["shape",{}],)"
        R"(["seed",7],["x"]]}]})"}) {
    write_file_atomic(odd + "/run.json", info);
    std::ofstream(odd + "/metrics.jsonl") << R"({"step":"x","tokens":{}})"
                                          << "\n";
    RunsUi ui({root.string()}, 0, true);
    RawClient::Response r = client(ui).get("/ui/runs");
    ASSERT_EQ(r.status, 200) << info;
    EXPECT_EQ(r.json().size(), 2u) << info;
    EXPECT_EQ(r.json()[0]["step"], 3) << info;
  }
}

TEST(RunFiles, ALockIsThatOfItsDeviceToo) {
  const char* table =
      "1: POSIX  ADVISORY  WRITE 7 00:1a:41 0 EOF\n2: FLOCK  ADVISORY  WRITE 8 103:0a:42 0 EOF\n"
      "2: -> FLOCK  ADVISORY  WRITE 9 103:0a:42 0 EOF\n";
  auto listed = [&](const char* device, uint64_t inode) {
    std::istringstream in(table);
    return lists_lock(in, device, inode);
  };
  EXPECT_TRUE(listed("259:10", 42));
  EXPECT_FALSE(listed("0:26", 42));
  EXPECT_FALSE(listed("259:10", 2));
  EXPECT_FALSE(listed("0:26", 41));  // of another kind
}

TEST_F(RunsTest, EventsFollowARunToItsEnd) {
  std::string folder = run("a", 2);
  auto lock = std::make_unique<FolderLock>(folder);
  RunsUi ui({folder}, 0, true);
  EXPECT_EQ(get(ui, "/ui/runs")[0]["running"], true);
  RawClient c = client(ui);
  c.send("GET /ui/runs/a/events?after=1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
  std::string got = c.until("id: 2\ndata: {\"step\":2,");
  EXPECT_THAT(got, HasSubstr("text/event-stream"));
  EXPECT_THAT(got, testing::Not(HasSubstr("id: 1\n")));
  add_lines(folder, 3, 3);
  c.until("id: 3\ndata: {\"step\":3,");
  // Resumed from an earlier checkpoint: the lines behind it are cut off and come again.
  fs::resize_file(folder + "/metrics.jsonl", 0);
  EXPECT_THAT(c.until("event: reset\n"), HasSubstr("event: reset"));
  add_lines(folder, 1, 1);
  EXPECT_THAT(c.until("id: 1\ndata: {\"step\":1,"), HasSubstr("id: 1\n"));
  lock.reset();
  EXPECT_THAT(c.until("event: end\n"), HasSubstr("event: end"));
}

TEST_F(RunsTest, WhoFollowsGetsTheLastLinesWhenTheServerGoes) {
  std::string folder = run("a", 1);
  FolderLock lock(folder);  // the process that trains is the one that serves
  auto ui = std::make_unique<RunsUi>(std::vector<std::string>{folder}, 0, true);
  RawClient c = client(*ui);
  c.send("GET /ui/runs/a/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
  c.until("id: 1\n");
  add_lines(folder, 2, 400);
  ui.reset();
  std::string rest = c.until("event: end\n");
  EXPECT_THAT(rest, HasSubstr("id: 400\n"));
  EXPECT_THAT(rest, HasSubstr("event: end\n"));
}

TEST_F(RunsTest, APageThatLooksEverySecondHasALastLookWhenTheServerGoes) {
  std::string folder = run("a", 1);
  FolderLock lock(folder);  // the process that trains is the one that serves
  auto ui = std::make_unique<RunsUi>(std::vector<std::string>{folder}, 0, true);
  RawClient c = client(*ui);
  const std::string ask = "/ui/runs/a/metrics?points=1500";
  auto first = c.get(ask);
  EXPECT_EQ(told(first.head, "Wels-Running"), "1");
  add_lines(folder, 2, 2);
  std::string info = read_file(folder + "/run.json");
  info.replace(info.find("running"), 7, "finished");
  write_file_atomic(folder + "/run.json", info);
  std::thread end([&] { ui.reset(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  auto last = c.get(ask + "&after=" + told(first.head, "Wels-Next"));
  EXPECT_EQ(json::parse(last.body)["step"], 2);
  EXPECT_EQ(told(last.head, "Wels-Running"), "0");
  json list = c.get("/ui/runs").json();
  EXPECT_EQ(list[0]["running"], false);
  EXPECT_EQ(list[0]["status"], "finished");
  EXPECT_EQ(list[0]["step"], 2);
  end.join();
}

TEST_F(RunsTest, SamplesAndRolloutsComeInTheOrderOfSteps) {
  std::string folder = run("a", 6);
  std::ofstream(folder + "/samples.jsonl")
      << R"({"step":4,"task":"parity:20","prompt":"p","text":"t","reward":1})"
      << "\nno json\n";
  RunsUi ui({folder}, 0, true);
  json s = get(ui, "/ui/runs/a/samples");
  ASSERT_EQ(s.size(), 3u);
  EXPECT_EQ(s[0]["text"], "text 3");
  EXPECT_EQ(s[1]["reward"], 1);
  EXPECT_EQ(s[1]["task"], "parity:20");
  EXPECT_EQ(s[2]["step"], 6);
}

TEST_F(RunsTest, ExpertsAreThoseOfTheLastStepThatHasThem) {
  RunsUi ui({run("a", 5), run("dense", 1)}, 0, true);
  json e = get(ui, "/ui/runs/a/experts");
  EXPECT_EQ(e["step"], 4);
  EXPECT_EQ(e["layers"], json::array({1, 2}));
  EXPECT_EQ(e["experts"], 2);
  EXPECT_EQ(e["load"][1][1], 2);
  EXPECT_EQ(e["bias"][0][1], 1);
  EXPECT_TRUE(get(ui, "/ui/runs/dense/experts").is_null());
}

TEST_F(RunsTest, NothingElseCanBeRead) {
  std::string folder = run("a", 1);
  RunsUi ui({folder}, 0, true);
  for (const char* path :
       {"/ui/runs/nobody/metrics", "/ui/runs/../metrics", "/ui/runs/%2e%2e/metrics",
        "/ui/runs/a/../run.json", "/ui/runs/a/run.json", "/ui/runs/a", "/ui/runs//metrics",
        "/ui/runs/a/metrics/x", "/ui/runsx", "/metrics.jsonl", "/ui/inside/x", "/chat/completions"})
    EXPECT_EQ(client(ui).get(path).status, 404) << path;
  EXPECT_EQ(client(ui).post("/ui/runs", "{}").status, 405);
  EXPECT_EQ(client(ui).get("/ui/runs", "Origin: http://evil.example\r\n").status, 403);
  RawClient c = client(ui);
  c.send("GET /ui/runs HTTP/1.1\r\nHost: evil.example\r\n\r\n");
  EXPECT_EQ(c.response().status, 403);
}

TEST_F(RunsTest, AServerOfAModelShowsRunsTooToWhoeverMayUseIt) {
  std::string folder = run("a", 3);
  {
    TestServer none;
    EXPECT_EQ(RawClient(none.port).get("/ui/runs").status, 404);
  }
  RunRoutes routes(RunTable({root.string()}, true));
  {
    TestServer server({.runs = &routes});
    json list = RawClient(server.port).get("/ui/runs").json();
    EXPECT_EQ(list[0]["step"], 3);
    std::string at = "/ui/runs/" + list[0]["id"].get<std::string>();
    EXPECT_EQ(RawClient(server.port).get("/ui/runs/nobody/metrics").status, 404);
    RawClient lines(server.port);
    std::string three = lines.get(at + "/metrics").body;
    EXPECT_EQ(std::count(three.begin(), three.end(), '\n'), 3);
    EXPECT_EQ(RawClient(server.port).post("/ui/runs", "{}").status, 405);
    FolderLock lock(folder);  // somebody trains
    RawClient c(server.port);
    c.send("GET " + at + "/events?after=3 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    c.until("\r\n\r\n");
    add_lines(folder, 4, 4);
    EXPECT_THAT(c.until("id: 4\n"), HasSubstr("id: 4\n"));
    routes.end();
    EXPECT_THAT(c.until("event: end\n"), HasSubstr("event: end\n"));
  }
  Accounts accounts((root / "keys.db").string(), {});
  std::string key = accounts.create_key("alice", "", {});
  RunRoutes kept(RunTable({root.string()}, true));
  TestServer guarded({.accounts = &accounts, .runs = &kept});
  EXPECT_EQ(RawClient(guarded.port).get("/ui/runs").status, 401);
  EXPECT_EQ(RawClient(guarded.port).get("/ui/runs", "Authorization: Bearer " + key + "\r\n").status,
            200);
}

TEST_F(RunsTest, WhatCannotBeServedIsSaid) {
  EXPECT_THROW(RunsUi({(root / "nowhere").string()}, 0, true), Error);
  EXPECT_THROW(RunsUi({root.string()}, 0, true), Error);  // no run there
  RunsUi ui({root.string()}, 0, false);                   // one will come
  EXPECT_EQ(get(ui, "/ui/runs"), json::array());
  EXPECT_THROW(RunsUi({root.string()}, port_of(ui), false), Error);
}

}  // namespace
}  // namespace wels
