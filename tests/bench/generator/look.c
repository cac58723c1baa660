/* One look at what the trees have cost so far, for the tests and for the curious. */
#include "account.h"
#include "fail.h"
#include "json.h"
#include "modes.h"
#include "options.h"

void look(void)
{
    if (!options.tree_count)
        fail(OURS, "look needs --tree");
    struct cpu cpu = tree_cpu();
    struct memory memory = tree_memory();
    json_begin("look");
    json_number("cpu_s", cpu.seconds);
    json_number("reaped_s", cpu.reaped);
    json_number("pss_kib", memory.pss);
    json_number("rss_kib", memory.rss);
    json_number("processes", memory.processes);
    json_number("threads", memory.threads);
    json_number("descriptors", memory.descriptors);
    json_end();
}
