async def test_a_database_is_there(pool, agent_id):
    async with pool.acquire() as connection:
        assert await connection.fetchval("SELECT count(*) FROM agents WHERE id = $1", agent_id) == 1
