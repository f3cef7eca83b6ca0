-- Written by Tidegate. Keeps a request until its environment's route says that it may go on.
--
-- Loaded once per thread, so that those who wait do not wait for each other. It costs nothing while nobody is
-- held: the configuration calls it for routes with the mark `!` only. The map is the one that the
-- configuration looks up, so that what is written over the socket is seen at once. A process that a reload has
-- replaced sees no more of it: it lets its requests go, and the configuration hands them to its successor.

local routes = Map.new("routes.map", Map._beg)
local STEP_MS = 20

local function hold(txn)
    local key = txn:get_var("txn.held")
    local over = core.now().sec + (tonumber(txn:get_var("txn.hold_s")) or 0)
    while core.now().sec <= over do
        local route = routes:lookup(key)
        if route == nil or route:sub(2, 2) ~= "!" or txn.f:stopping() == 1 then
            return
        end
        core.msleep(STEP_MS)
    end
    txn:set_var("txn.over", "1")
end

core.register_action("hold", { "http-req" }, hold, 0)
