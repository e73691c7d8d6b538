// What tests/engine/test_team.py calls: the team's stages under members that sleep, come late or never.
#include "native/team.h"

#include <thread>

using namespace jtn;

static double processor_seconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

static void rest(double for_seconds) {
  const timespec t = {static_cast<time_t>(for_seconds), static_cast<long>(1e9 * (for_seconds - static_cast<time_t>(for_seconds)))};
  nanosleep(&t, nullptr);
}

extern "C" {
double awake_at_most() { return Patience::SPIN + Patience::YIELD; }

// Processor seconds of a member that waits while its partner sleeps in the middle of its share; spinning: it waits without patience.
double waiting(double for_seconds, int spinning) {
  Stages stages;
  stages.start(2);
  std::atomic<bool> began{false}, ended{false};
  std::thread partner([&] {
    stages.run(1, 1, [&](int) {
      began = true;
      rest(for_seconds);
      ended = true;
    });
  });
  while (!began) sched_yield();
  const double before = processor_seconds();
  if (spinning) while (!ended) pause_cpu();
  stages.run(1, 0, [](int) {});
  const double spent = processor_seconds() - before;
  partner.join();
  return spent;
}

// Member 0 of 2 alone: the shares it computed in `count` stages. Then member 1 comes, too late: out gets the shares that were left for it.
int without_partner(int count, int* left) {
  Stages stages;
  stages.start(2);
  int done = 0;
  for (int s = 1; s <= count; s++) stages.run(s, 0, [&](int) { done++; });
  for (int s = 1; s <= count; s++) stages.run(s, 1, [&](int) { ++*left; });
  return done;
}

// `members` threads, a cell each: in every stage a cell becomes the sum of all cells of the stage before, plus its number. Unsigned, it may wrap.
void sums(int members, int shares, int count, unsigned* cells) {
  Stages stages;
  stages.start(shares);
  std::vector<unsigned> old(cells, cells + shares), now(shares);
  std::vector<unsigned>* maps[2] = {&old, &now};
  std::vector<std::thread> team;
  for (int rank = 0; rank < members; rank++)
    team.emplace_back([&, rank] {
      for (int s = 1; s <= count; s++)
        stages.run(s, rank, [&](int share) {
          unsigned sum = share;
          for (unsigned v : *maps[(s - 1) % 2]) sum += v;
          (*maps[s % 2])[share] = sum;
          if (s % 97 == share) rest(1e-4);  // now and then somebody is late
        });
    });
  for (std::thread& one : team) one.join();
  for (int i = 0; i < shares; i++) cells[i] = (*maps[count % 2])[i];
}
}
